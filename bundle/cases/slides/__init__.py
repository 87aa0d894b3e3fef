"""Whole-slide images, which are read region by region and never as a whole."""

from bundle.cases.slides.opening import open_slide
from bundle.cases.slides.recognise import is_slide
from bundle.cases.slides.slide import Slide, SlideGrid
from bundle.cases.slides.tissue import SHOWN_SIDE, Overview, overview_of, tissue_mask

__all__ = [
    "SHOWN_SIDE",
    "Overview",
    "Slide",
    "SlideGrid",
    "is_slide",
    "open_slide",
    "overview_of",
    "tissue_mask",
]
