"""Which DICOM instances are no image of a patient, or are not wanted, and the clause that says so."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import NamedTuple

from bundle.cases.dicom.headers import SECONDARY_CAPTURES, Instance
from bundle.cases.dicom.selection import SeriesSelection, nearest_plane
from bundle.cases.modality import Modality

#: DICOM modalities (PS3.3 C.7.3.1.1.1) whose images are films, and those that are microscopy.
XRAY_MODALITIES = frozenset(("CR", "DX", "RG", "DR", "XR"))
MICROSCOPY_MODALITIES = frozenset(("SM", "GM"))
_NO_IMAGES = {
    "SEG": "a segmentation",
    "SR": "a structured report",
    "PR": "a presentation state",
    "KO": "a selection of key images",
    "RTSTRUCT": "a structure set",
    "RTPLAN": "a treatment plan",
    "RTDOSE": "a dose distribution",
    "RTRECORD": "a treatment record",
    "REG": "a registration",
    "DOC": "a document",
    "RWV": "a value mapping",
    "ECG": "a waveform",
    "FID": "a set of fiducials",
}
_LOCALIZERS = frozenset(("LOCALIZER", "SCOUT", "TOPOGRAM", "SURVIEW"))
# Of images that are computed from others: what is no stack of the patient's own slices any more.
_REFORMATS = frozenset(
    (
        *("MIP", "MINIP", "MPR", "CPR", "VRT", "SSD", "REFORMATTED", "PROJECTION IMAGE", "PROJECTION"),
        *("VOLREN", "VOLUME RENDERING", "RENDERED", "COLLAGE"),
        *("SCREEN SAVE", "SCREENSHOT", "DOSE_INFO", "DOSE INFO"),
    )
)
# Of a whole-slide image's series, PS3.3 C.8.12.4.1.1 value 3: what shows the glass or its label, or all of it small.
_NO_LEVELS = {
    "LABEL": "the label of a slide",
    "OVERVIEW": "an overview of a slide",
    "LOCALIZER": "an overview of a slide",
    "THUMBNAIL": "a thumbnail of a slide",
}


class Reason(NamedTuple):
    """Why files are left out.

    Attributes:
        clause: such as 'is a localizer'.
        remedy: the setting that would take them, as a clause with a place for the series' {uid}.
        is_usual: whether every such series has files like these, so that its report need not tell.
    """

    clause: str
    remedy: str = ""
    is_usual: bool = False


_BY_SERIES = "series {uid} takes it"


def no_patient_image(instance: Instance, stated: Modality | None, wanted: bool) -> Reason | None:
    """Why an instance is left out; None where it is not."""
    kind = "SR" if instance.is_report and instance.modality not in _NO_IMAGES else instance.modality
    if kind in _NO_IMAGES:
        return Reason(f"is {_NO_IMAGES[kind]} ({kind}), not an image")
    if not instance.has_pixels:
        return Reason(f"is an object without an image ({instance.modality or 'no modality'})")
    if instance.is_slide and (flavor := "".join(instance.image_type[2:3])) in _NO_LEVELS:
        return Reason(f"is {_NO_LEVELS[flavor]}", is_usual=True)
    if wanted or instance.is_slide:
        return None
    if _LOCALIZERS.intersection(instance.image_type):
        return Reason("is a localizer", _BY_SERIES)
    if instance.image_type[:1] == ("DERIVED",) and (what := _REFORMATS.intersection(instance.image_type)):
        return Reason(f"is derived from other images ({min(what)})", _BY_SERIES)
    if (
        instance.sop_class in SECONDARY_CAPTURES
        and stated is None
        and instance.modality not in XRAY_MODALITIES
    ):
        return Reason("is a secondary capture, such as a screenshot", _BY_SERIES)
    if instance.for_processing and stated is None:
        return Reason("is a film for processing, not for presentation", _BY_SERIES)
    return None


def not_selected(
    kept: Sequence[Instance], selection: SeriesSelection, stated: Modality | None
) -> Reason | None:
    """Why the instances of a series that show the patient are not taken; None where they are."""
    first = kept[0]
    if selection.uids and first.uids["SeriesInstanceUID"] not in selection.uids:
        return Reason("is not a series that was asked for", _BY_SERIES)
    modality, pattern = selection.series_modality, selection.series_description
    if modality is not None and first.modality != str(modality).upper():
        return Reason(
            f"has modality {first.modality}, not {str(modality).upper()}",
            f"series_modality {first.modality} takes it",
        )
    if pattern is not None and not fnmatch.fnmatchcase(first.description.lower(), str(pattern).lower()):
        return Reason(
            f"has a description that does not match '{pattern}'",
            "another series_description, or none, takes it",
        )
    if not is_volume(first, stated):
        return None
    slices = sum(one.frames for one in kept)
    if slices < selection.min_slices:
        return Reason(
            f"has {slices} slices, fewer than {selection.min_slices}", f"min_slices {slices} takes it"
        )
    if selection.orientation is not None:
        plane = nearest_plane(next((one.orientation for one in kept if one.orientation), ()))
        if plane != selection.orientation:
            return Reason(
                f"is {plane or 'of unknown orientation'}, not {selection.orientation}",
                f"orientation {plane} takes it" if plane else "",
            )
    return None


def is_volume(instance: Instance, stated: Modality | None) -> bool:
    """Whether an instance is a slice, or holds the frames, of a volume."""
    if instance.modality == "CT":
        return True
    if instance.is_slide or instance.modality in XRAY_MODALITIES | MICROSCOPY_MODALITIES:
        return False
    return stated == "CT" or (stated is None and (bool(instance.orientation) or instance.frames > 1))
