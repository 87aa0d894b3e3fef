"""Networks to export."""

from tests.networks.conftest import images, make_segmenter, small_prior

__all__ = ["images", "make_segmenter", "small_prior"]
