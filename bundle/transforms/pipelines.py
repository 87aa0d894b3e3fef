"""The pipelines of each modality: preprocessing that can be undone, and random augmentation for training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from monai.transforms import (
    Compose,
    Orientationd,
    RandAdjustContrastd,
    RandAffined,
    RandCoarseDropoutd,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandGridDistortiond,
    RandRotate90d,
    RandScaleIntensityd,
    RandShiftIntensityd,
    RandSpatialCropd,
    RepeatChanneld,
    Resized,
    ScaleIntensityRangePercentilesd,
    Spacingd,
    SpatialPadd,
    Transform,
    Zoomd,
)

from bundle.cases.modality import MODALITIES, Modality
from bundle.cases.modality_settings import ModalitySettings
from bundle.cases.structures import Structures
from bundle.transforms.by_modality import ByModalityd, RandByModalityd
from bundle.transforms.content_key import ContentKeyd
from bundle.transforms.film import TurnFilmd
from bundle.transforms.intensity import (
    Monochrome2d,
    RandAird,
    RandContrastPhased,
    RandStaind,
    ScaleToUnitd,
    WindowHounsfieldd,
)
from bundle.transforms.load import LoadCased
from bundle.transforms.smoothing import SmoothForSized, SmoothForSpacingd

#: Voxel order in which a slice, rows along the second axis, stands as radiologists see it.
AXCODES = "LPS"
_BOTH = ("image", "label")
_MODES = ("bilinear", "nearest")


def preprocessing(
    structures: Structures,
    modalities: ModalitySettings | None = None,
    modality: Modality | None = None,
) -> Compose:
    """What every image, and its label where the item names one, goes through before the network.

    MONAI's Invertd undoes it.

    CT: voxel order LPS, resampled, window to [0, 1]; (1, X, Y, Z).
    X-ray: turned as it is usually shown, MONOCHROME2, percentiles to [0, 1], resized; (3, H, W).
    H&E: [0, 1], zoomed; (3, H, W).

    Args:
        structures: of the network.
        modalities: their settings.
        modality: for cases that do not state theirs; None to tell it from the file.
    """
    modalities = modalities or ModalitySettings()
    ct, xray, histology = modalities.ct, modalities.xray, modalities.histology
    if ct.in_plane_size is None:
        ct_grid: list[Transform] = [
            SmoothForSpacingd("image", pixdim=ct.spacing),
            Spacingd(
                _BOTH,
                pixdim=ct.spacing,
                mode=_MODES,
                padding_mode="border",
                dtype=np.float32,
                allow_missing_keys=True,
            ),
        ]
    else:
        ct_grid = [
            SmoothForSized("image", ct.in_plane_size, in_plane=True),
            Resized(
                _BOTH,
                spatial_size=(ct.in_plane_size, ct.in_plane_size, -1),
                mode=("trilinear", "nearest"),
                align_corners=(False, None),
                allow_missing_keys=True,
            ),
        ]
    if ct.percentiles is None:
        ct_intensity: Transform = WindowHounsfieldd("image", ct.window, ct.air)
    else:
        ct_intensity = ScaleIntensityRangePercentilesd(
            "image", *ct.percentiles, b_min=0.0, b_max=1.0, clip=True
        )
    branches: dict[str, list[Transform]] = {
        "CT": [
            Orientationd(_BOTH, axcodes=AXCODES, labels=None, allow_missing_keys=True),
            ContentKeyd("image"),
            *ct_grid,
            ct_intensity,
        ],
        "X-ray": [
            TurnFilmd(_BOTH, allow_missing_keys=True),
            Monochrome2d("image"),
            ContentKeyd("image"),
            ScaleIntensityRangePercentilesd("image", *xray.percentiles, b_min=0.0, b_max=1.0, clip=True),
            SmoothForSized("image", xray.size),
            RepeatChanneld("image", 3),
            Resized(
                _BOTH,
                spatial_size=xray.size,
                size_mode="longest",
                mode=_MODES,
                align_corners=(False, None),
                allow_missing_keys=True,
            ),
        ],
        "H&E": [
            ContentKeyd("image"),
            ScaleToUnitd("image"),
            Zoomd(
                _BOTH,
                zoom=histology.zoom,
                mode=_MODES,
                align_corners=(False, None),
                keep_size=False,
                allow_missing_keys=True,
            ),
        ],
    }
    return Compose([LoadCased(structures, modality, xray.photometric), ByModalityd(branches)])


def cropping(image_size: int = 128, vary_intensity: bool = False) -> RandByModalityd:
    """Random squares of unlabelled images, little varied: an image DDPM learns what images look like.

    Args:
        image_size: side of the result in pixels.
        vary_intensity: vary contrast, brightness and sharpness too, for what should not depend on them.
    """
    intensity = (
        [
            RandAdjustContrastd("image", prob=0.8, gamma=(0.5, 2.0)),
            RandScaleIntensityd("image", factors=0.3, prob=0.8),
            RandShiftIntensityd("image", offsets=0.15, prob=0.8),
            RandGaussianSmoothd("image", sigma_x=(0.3, 1.2), sigma_y=(0.3, 1.2), prob=0.3),
            RandGaussianNoised("image", prob=0.3, std=0.05),
            RandCoarseDropoutd("image", holes=2, spatial_size=image_size // 5, max_holes=5, prob=0.5),
        ]
        if vary_intensity
        else []
    )
    cut = _square("image", image_size)
    vary = cast(
        Transform,
        RandAffined(
            "image",
            prob=0.5,
            rotate_range=0.1,
            scale_range=(0.1, 0.1),
            translate_range=(0.04 * image_size,) * 2,
            mode="bilinear",
            padding_mode="border",
        ),
    )
    turn = [RandFlipd("image", prob=0.5, spatial_axis=0), RandRotate90d("image", prob=0.75)]
    return RandByModalityd(
        {
            "CT": [*cut, vary, *intensity],
            "X-ray": [*cut, vary, *intensity],
            "H&E": [*cut, *turn, *intensity],
        }
    )


def augmentation(
    image_size: int | Mapping[Modality, int] = 128,
    ct_strength: float = 1.0,
    modalities: ModalitySettings | None = None,
    xray_strength: float = 1.0,
    histology_flips: bool = True,
    vary: bool = True,
) -> RandByModalityd:
    """Random variation of 2-D training images, ending in squares.

    CT and X-ray are never mirrored: left and right organs are told apart by their side alone, and so are the
    zones of the lungs that a report names.

    Args:
        image_size: side of the result in pixels, or one a modality.
        ct_strength: scales the geometric ranges for CT.
        modalities: of the preprocessing.
        xray_strength: scales the geometric ranges for X-rays; beyond 1 they are distorted and lose squares too, so
            that few images last longer; in [0, 2].
        histology_flips: mirror H&E and turn it by right angles; false where texts name sides of the image.
        vary: false only cuts images to size.

    Raises:
        ValueError: a modality without a size, or an unknown one, or an X-ray strength out of range.
    """
    if not 0.0 <= xray_strength <= 2.0:
        raise ValueError(f"xray_augmentation must be in [0, 2], not {xray_strength!r}")
    sides = dict(image_size) if isinstance(image_size, Mapping) else dict.fromkeys(MODALITIES, image_size)
    if set(sides) != set(MODALITIES):
        raise ValueError(
            f"image_size must be a number, or one for each of {', '.join(MODALITIES)}, not {image_size!r}"
        )

    cut: dict[str, list[Any]] = {modality: _square(_BOTH, side) for modality, side in sides.items()}
    if not vary:
        return RandByModalityd(cut)
    ct, film, more = ct_strength, xray_strength, max(xray_strength - 1.0, 0.0)
    blur_and_noise = [
        RandGaussianSmoothd("image", sigma_x=(0.3, 1.2), sigma_y=(0.3, 1.2), prob=0.15),
        RandGaussianNoised("image", prob=0.3, std=0.05),
    ]
    grey = [
        RandAdjustContrastd("image", prob=0.4, gamma=(0.6, 1.7)),
        RandScaleIntensityd("image", factors=0.25, prob=0.4),
        RandShiftIntensityd("image", offsets=0.12, prob=0.4),
        *blur_and_noise,
    ]
    flips = [RandFlipd(_BOTH, prob=0.5, spatial_axis=0), RandRotate90d(_BOTH, prob=0.75)]
    return RandByModalityd(
        {
            "CT": [
                *cut["CT"],
                # organs grow and shrink one by one, as they do in disease; outside is air
                *_shape(sides["CT"], 0.26 * ct, 0.2 * ct, 0.1 * ct, 0.1 * ct, 0.9, 0.3 * ct, "zeros"),
                RandAird("image", 0.0 if modalities is None else modalities.ct.air),
                RandContrastPhased("image", prob=0.5),
                *grey,
                *_hidden_squares(24, 0.2),
            ],
            "X-ray": [
                *cut["X-ray"],
                *_shape(sides["X-ray"], 0.15 * film, 0.15 * film, 0.06 * film, 0.05 * film, 0.8, 0.5 * more),
                *grey,
                *_hidden_squares(20, 0.6 * more),
            ],
            "H&E": [
                *cut["H&E"],
                *(flips if histology_flips else []),
                *_shape(sides["H&E"], 0.3, 0.2, 0.05, 0.05, 0.5),
                RandStaind("image", prob=0.7),
                *blur_and_noise,
            ],
        }
    )


def _square(keys: Sequence[str] | str, side: int) -> list[Any]:
    """A square at a random place, so that images larger than it are seen whole over time.

    Edges are repeated, so that H&E is not framed in black, which no slide is.
    """
    square = (side, side)
    return [SpatialPadd(keys, square, mode="edge"), RandSpatialCropd(keys, square, random_size=False)]


def _shape(
    side: int,
    rotate: float,
    scale: float,
    shift: float,
    shear: float,
    prob: float,
    distortion: float = 0.0,
    outside: str = "border",
) -> list[Any]:
    """Rotation in radians, scaling, shift in squares of `side` and shear; distortion of single parts, where above 0."""
    affine = RandAffined(
        _BOTH,
        prob=prob,
        rotate_range=rotate,
        scale_range=(scale, scale),  # a single number would vary the first axis alone
        translate_range=(shift * side,) * 2,
        shear_range=(shear, shear),
        mode=_MODES,
        padding_mode=outside,
    )
    if distortion <= 0:
        return [affine]
    distort = RandGridDistortiond(
        _BOTH, 4, prob=0.5, distort_limit=distortion, mode=_MODES, padding_mode=outside
    )
    return [affine, distort]


def _hidden_squares(side: int, prob: float) -> list[Any]:
    if prob <= 0:
        return []
    return [RandCoarseDropoutd("image", 2, spatial_size=side, max_holes=4, fill_value=0.0, prob=prob)]
