"""Text-prior diffusion segmentation of clinical images as one MONAI bundle."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bundle.segmenter import Segmentation, SegmentationError, Segmenter

__version__ = "0.10.0"
__all__ = ["Segmentation", "SegmentationError", "Segmenter", "__version__"]


def __getattr__(name: str) -> Any:
    """What segments from Python is loaded when it is asked for: that takes seconds, and --help does without."""
    if name in __all__:
        return getattr(importlib.import_module("bundle.segmenter"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
