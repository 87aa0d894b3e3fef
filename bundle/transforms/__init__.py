"""MONAI dictionary transforms for CT, X-ray and H&E, and the wording of prompts."""

from bundle.transforms.by_modality import ByModalityd, RandByModalityd
from bundle.transforms.intensity import Monochrome2d, RandStaind, ScaleToUnitd
from bundle.transforms.load import LoadCased, reference_item
from bundle.transforms.pipelines import augmentation, cropping, preprocessing
from bundle.transforms.slices import back_from, neighbouring_slices, seen_from

__all__ = [
    "ByModalityd",
    "LoadCased",
    "Monochrome2d",
    "RandByModalityd",
    "RandStaind",
    "ScaleToUnitd",
    "augmentation",
    "back_from",
    "cropping",
    "neighbouring_slices",
    "preprocessing",
    "reference_item",
    "seen_from",
]
