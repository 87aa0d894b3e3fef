"""Metrics, the effect of texts, tables with confidence intervals, and the handler that scores an evaluator's cases."""

from bundle.scoring.handler import Scoring
from bundle.scoring.instances import CellScore, score_cells
from bundle.scoring.metrics import Score, score_label, score_masks
from bundle.scoring.prompt_adherence import adherence_prompts
from bundle.scoring.summary import bootstrap_ci95, case_means, metrics_csv, summarise
from bundle.scoring.text_effect import TEXT_MODES, TextMode, shuffled_texts, text_prompts

__all__ = [
    "TEXT_MODES",
    "CellScore",
    "Score",
    "Scoring",
    "TextMode",
    "bootstrap_ci95",
    "case_means",
    "adherence_prompts",
    "metrics_csv",
    "score_cells",
    "score_label",
    "score_masks",
    "shuffled_texts",
    "summarise",
    "text_prompts",
]
