"""How the network is shown the images of each modality, and what is done with its answers.

The values are those of `ct`, `xray` and `histology` in configs/inference.yaml. Where they are left out here, nothing
optional is done: no temperature, no mirrored pass.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args

from bundle.cases.modality import Modality, Photometric

Sides = Literal["auto", "image", "patient"]
#: Of a volume: the plane that its slices lie in.
View = Literal["axial", "coronal", "sagittal"]
#: Micrometres per pixel of slide scanners; what lies outside is the resolution of print or of a film.
LEAST_MPP, MOST_MPP = 0.05, 10.0
_Settings = TypeVar("_Settings", bound="_OfOneModality")


@dataclass(frozen=True)
class _OfOneModality:
    """What every modality has.

    Attributes:
        temperature: what logits are divided by, so that probabilities mean what they say, see
            `bundle.diffusion.uncertainty.tempered`; 1 leaves them as they are.

    Raises:
        ValueError: a value outside its range.
    """

    temperature: float = 1.0

    #: How the settings are called in a configuration.
    prefix = ""

    def __post_init__(self) -> None:
        for each in dataclasses.fields(self):
            value = getattr(self, each.name)
            if isinstance(value, list):  # as YAML has it
                object.__setattr__(self, each.name, tuple(value))
        self._check("temperature", _is_number(self.temperature, 0.01, 100.0), "a number from 0.01 to 100")

    def _check(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            value = getattr(self, name)
            raise ValueError(
                f"{self.prefix}#{name} must be {expected}, "
                f"not {list(value) if isinstance(value, tuple) else value!r}"
            )

    @classmethod
    def of(cls: type[_Settings], settings: Mapping[str, Any]) -> _Settings:
        """From a configuration, which has to name every setting and no other.

        Raises:
            ValueError: it does not, or a value is outside its range.
        """
        known = [each.name for each in dataclasses.fields(cls)]
        for name in settings:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {cls.prefix}#{close[0]}?" if close else f"it has {', '.join(known)}."
                raise ValueError(f"{cls.prefix}#{name} is not known; {hint}")
        missing = [name for name in known if name not in settings]
        if missing:
            raise ValueError(f"{cls.prefix} lacks {missing[0]}; change single settings by {cls.prefix}#NAME.")
        return cls(**settings)


@dataclass(frozen=True)
class CtSettings(_OfOneModality):
    """Of CT.

    Attributes:
        window: HU that become 0 and 1; what lies above is clipped.
        air: what -1000 HU becomes, see `bundle.transforms.intensity.WindowHounsfieldd`; 0 clips below the window too.
        percentiles: of each volume, that become 0 and 1 instead of a window.
        spacing: mm along left-right, front-back and head-foot.
        in_plane_size: pixels; resize slices to squares of it, as MedCondDiff does, instead of resampling to a spacing.
        slice_distance: from a slice to the neighbours that it is read with, in slices.
        views: planes that volumes are cut in; the means of their probabilities count, as those of members do. For more
            than one, `spacing` has to be as fine in one direction as in another.
        remove_fragments: drop pieces under a structure's `least_piece` and slices at its ends under its `least_end`.
    """

    window: tuple[float, float] = (-125.0, 275.0)
    air: float = 0.0
    percentiles: tuple[float, float] | None = None
    spacing: tuple[float, float, float] = (3.0, 3.0, 3.0)
    in_plane_size: int | None = None
    slice_distance: int = 1
    views: tuple[View, ...] = ("axial",)
    remove_fragments: bool = False

    prefix = "ct"

    def __post_init__(self) -> None:
        super().__post_init__()
        rises = _are_numbers(self.window, 2) and -1000.0 < self.window[0] < self.window[1]
        self._check("window", rises, "two numbers that rise and begin above -1000 HU")
        self._check("air", _is_number(self.air, -1e3, 0.0), "a number of at most 0")
        self._check(
            "percentiles", self.percentiles is None or _are_percentiles(self.percentiles), _PERCENTILES
        )
        positive = _are_numbers(self.spacing, 3) and min(self.spacing) > 0.0
        self._check("spacing", positive, "three numbers above 0")
        size = self.in_plane_size
        self._check("in_plane_size", size is None or _is_count(size), "a whole number of pixels")
        self._check("slice_distance", _is_count(self.slice_distance), "a whole number of at least 1")
        several = isinstance(self.views, tuple) and 0 < len(self.views) == len(set(self.views))
        known = get_args(View)
        self._check(
            "views", several and set(self.views) <= set(known), f"a list with some of {', '.join(known)}"
        )


@dataclass(frozen=True)
class XraySettings(_OfOneModality):
    """Of X-rays.

    Attributes:
        size: pixels, longest side.
        percentiles: of each image, that become 0 and 1.
        photometric: MONOCHROME1 where bone is dark; None for what the file says.
        sides: whose left and right texts mean. The texts that networks are trained with mean the image's; those of
            the patient are exchanged before they are read. 'auto' takes the patient's for texts of DICOM reports and
            beside films that say where the patient's sides are, see `bundle.cases.Case.means_patient`.
        mirrored: segment a second time mirrored, with left and right in the text exchanged; both count as members.
    """

    size: int = 128
    percentiles: tuple[float, float] = (0.5, 99.5)
    photometric: Photometric | None = None
    sides: Sides = "auto"
    mirrored: bool = False

    prefix = "xray"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("size", _is_count(self.size), "a whole number of pixels")
        self._check("percentiles", _are_percentiles(self.percentiles), _PERCENTILES)
        known = get_args(Photometric)
        self._check("photometric", self.photometric in (None, *known), " or ".join(known))
        self._check("sides", self.sides in get_args(Sides), "'auto', 'image' or 'patient'")
        self._check("mirrored", isinstance(self.mirrored, bool), "True or False")


@dataclass(frozen=True)
class HistologySettings(_OfOneModality):
    """Of H&E.

    Attributes:
        zoom: pixels of the network per pixel of the image, which is taken to be 40x; 0.5 brings it to 20x.
        resolution: micrometres per pixel at which slides are segmented; 0.25 is 40x.
        mirrored: as of X-rays.
        instances: part what touches of structures of kind 'cell', and count it, see `bundle.results.instances`.
        image_mpp: micrometres per pixel of images, for areas and densities in micrometres; None where they are not
            known.
        stain_borders: draw the borders of images where their stain has them too, see
            `bundle.inference.stain_borders`. It starts from probabilities at their temperature, and what it gives is no
            longer calibrated. Entropy is that of the result; variance, of the predictions, stays. Slides are refused.
    """

    zoom: float = 1.0
    resolution: float = 0.25
    mirrored: bool = False
    instances: bool = False
    image_mpp: float | None = None
    stain_borders: bool = False

    prefix = "histology"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("zoom", _is_number(self.zoom, 0.01, 100.0), "a number from 0.01 to 100")
        expected = f"micrometres per pixel from {LEAST_MPP} to {MOST_MPP}"
        self._check("resolution", _is_number(self.resolution, LEAST_MPP, MOST_MPP), expected)
        known = self.image_mpp is None or _is_number(self.image_mpp, LEAST_MPP, MOST_MPP)
        self._check("image_mpp", known, expected)
        for name in ("mirrored", "instances", "stain_borders"):
            self._check(name, isinstance(getattr(self, name), bool), "True or False")

    @property
    def image_pixel(self) -> float:
        """Micrometres that a pixel of an image is taken to be wide: `zoom` brings it to the network's resolution."""
        return self.resolution * self.zoom if self.image_mpp is None else self.image_mpp


@dataclass(frozen=True)
class ModalitySettings:
    """The settings of all modalities."""

    ct: CtSettings = field(default_factory=CtSettings)
    xray: XraySettings = field(default_factory=XraySettings)
    histology: HistologySettings = field(default_factory=HistologySettings)

    def of(self, modality: Modality) -> CtSettings | XraySettings | HistologySettings:
        """Those of one modality."""
        settings: dict[str, Any] = {"CT": self.ct, "X-ray": self.xray, "H&E": self.histology}
        return settings[modality]

    def is_mirrored(self, modality: Modality) -> bool:
        """Whether images are segmented a second time, mirrored; never CT, whose organs have sides."""
        return bool(getattr(self.of(modality), "mirrored", False))


def modality_settings(
    ct: Mapping[str, Any], xray: Mapping[str, Any], histology: Mapping[str, Any]
) -> ModalitySettings:
    """The settings of a configuration.

    Raises:
        ValueError: a setting is missing, unknown or outside its range.
    """
    return ModalitySettings(CtSettings.of(ct), XraySettings.of(xray), HistologySettings.of(histology))


_PERCENTILES = "two numbers that rise, from 0 to 100"


def _is_number(value: Any, least: float, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most


def _are_numbers(values: Any, count: int) -> bool:
    return (
        isinstance(values, tuple)
        and len(values) == count
        and all(_is_number(one, -1e6, 1e6) for one in values)
    )


def _are_percentiles(values: Any) -> bool:
    return _are_numbers(values, 2) and 0.0 <= values[0] < values[1] <= 100.0


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
