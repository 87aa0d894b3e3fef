"""The parts (image prior, fusion, denoiser) and the whole networks, one architecture a file."""

from bundle.networks.denoiser import MaskDenoiser
from bundle.networks.efficientnet_lite import EfficientNetLitePrior
from bundle.networks.fusion import PyramidTextConditioning
from bundle.networks.image_ddpm import (
    GUIDED_LAYOUTS,
    GuidedLayout,
    GuidedUNet,
    load_guided_unet,
    save_guided_unet,
)
from bundle.networks.image_ddpm_prior import ImageDdpmPrior
from bundle.networks.image_prior import PVT_V2_VARIANTS, PvtV2Prior
from bundle.networks.image_priors import build_image_prior
from bundle.networks.lcpdn import Lcpdn
from bundle.networks.naming import StructureNaming
from bundle.networks.pvt_beside_lite import PvtBesideLitePrior
from bundle.networks.pvt_on_lite import PvtOnLitePrior
from bundle.networks.segmenter import DiffusionSegmenter, count_parameters
from bundle.networks.tensor_store import TensorStore
from bundle.networks.text_diff import TextDiff
from bundle.networks.text_prior import TextPrior
from bundle.networks.vision_prior import VISION_LAYOUTS, VisionPrior
from bundle.networks.weights import WeightsError, file_sha256, load_weights, move_to, start_from

__all__ = [
    "DiffusionSegmenter",
    "EfficientNetLitePrior",
    "GUIDED_LAYOUTS",
    "GuidedLayout",
    "GuidedUNet",
    "ImageDdpmPrior",
    "Lcpdn",
    "MaskDenoiser",
    "PVT_V2_VARIANTS",
    "PvtBesideLitePrior",
    "PvtOnLitePrior",
    "PvtV2Prior",
    "PyramidTextConditioning",
    "StructureNaming",
    "TensorStore",
    "TextDiff",
    "TextPrior",
    "VISION_LAYOUTS",
    "VisionPrior",
    "WeightsError",
    "build_image_prior",
    "count_parameters",
    "file_sha256",
    "load_guided_unet",
    "load_weights",
    "move_to",
    "save_guided_unet",
    "start_from",
]
