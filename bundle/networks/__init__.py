"""The parts (image prior, fusion, denoiser) and the whole networks, one architecture a file."""

from bundle.networks.denoiser import MaskDenoiser
from bundle.networks.image_prior import PVT_V2_VARIANTS, PvtV2Prior
from bundle.networks.segmenter import DiffusionSegmenter, count_parameters
from bundle.networks.weights import WeightsError, file_sha256, load_weights, move_to, start_from

__all__ = [
    "PVT_V2_VARIANTS",
    "DiffusionSegmenter",
    "MaskDenoiser",
    "PvtV2Prior",
    "WeightsError",
    "count_parameters",
    "file_sha256",
    "load_weights",
    "move_to",
    "start_from",
]
