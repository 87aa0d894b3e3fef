"""Cases through the network: one (slices, tiles, members) and a run over many."""

from bundle.inference.evaluator import CaseDataset, CaseEvaluator
from bundle.inference.find import CaseList, find_cases
from bundle.inference.inferer import SegmentationInferer
from bundle.inference.postprocess import ToPredictiond
from bundle.inference.ray_actors import Actors
from bundle.inference.run import RunRecord
from bundle.inference.slides import SlideSegmenter

__all__ = [
    "Actors",
    "CaseDataset",
    "CaseEvaluator",
    "CaseList",
    "RunRecord",
    "SegmentationInferer",
    "SlideSegmenter",
    "ToPredictiond",
    "find_cases",
]
