"""Metrics, tables with confidence intervals, and the handler that scores an evaluator's cases."""

from bundle.scoring.handler import Scoring
from bundle.scoring.metrics import Score, score_label, score_masks
from bundle.scoring.summary import bootstrap_ci95, case_means, metrics_csv, summarise

__all__ = [
    "Score",
    "Scoring",
    "bootstrap_ci95",
    "case_means",
    "metrics_csv",
    "score_label",
    "score_masks",
    "summarise",
]
