"""What one study to segment is, before any transform has touched it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import nibabel
import numpy as np
from numpy.typing import NDArray

from bundle.cases.dicom.series import DicomSeries
from bundle.cases.dicom.source import DicomSource
from bundle.cases.image import SourceImage
from bundle.cases.modality import Modality, Photometric
from bundle.cases.privacy import Naming

PromptSource = Literal["option", "file", "datalist", "sidecar", "DICOM SR"]


@dataclass(frozen=True)
class CaseReference:
    """Where a case lies and what is known of it before it is read.

    Attributes:
        id: unique in a run, safe as a folder name.
        image: the image file; of a DICOM series of several files, the folder that holds them.
        label: the ground truth, where there is one.
        prompt: what to segment, in words; empty for no prompt.
        modality: as stated by the caller or the datalist; None to tell it from the file.
        labels: value in the ground truth -> name of the structure, background left out.
        modality_source: who stated the modality; without meaning while that is None.
        prompt_source: who gave the prompt; without meaning while that is empty.
        series: of DICOM, the files; None to look for them at `image` when the case is read.
        notes: what a reader of the report should know of how the case was found.
        naming: how results and messages name the image and its files.
        instances: of the ground truth, a picture with the number of each pixel's cell; None where there is none.
        held: the image itself, where it lies in memory; `image` only names it then.
    """

    id: str
    image: Path
    label: Path | None = None
    prompt: str = ""
    modality: Modality | None = None
    labels: Mapping[int, str] = field(default_factory=dict)
    modality_source: Literal["option", "datalist"] = "option"
    prompt_source: PromptSource = "option"
    series: DicomSeries | None = None
    notes: tuple[str, ...] = ()
    naming: Naming = field(default=Naming(), compare=False)
    instances: Path | None = None
    held: SourceImage | None = field(default=None, compare=False, repr=False)

    @property
    def shown(self) -> str:
        """The image, as results name it."""
        return self.naming.path(self.image)

    def deidentify(self, sentence: str) -> str:
        """A sentence about the case without what names the patient, as results and messages have it."""
        files = self.series.files if self.series is not None else ()
        return self.naming.text(sentence, [self.image, *files])


@dataclass(frozen=True)
class CaseFailure:
    """A case that can be named but not used; it is reported beside those that are.

    Attributes:
        id: as for a `CaseReference`, unique among references and failures together.
        input: the file or folder, as results name it.
        error: one sentence that names the file, the problem and the remedy.
    """

    id: str
    input: str
    error: str


class FilmTurn(NamedTuple):
    """What brings a film to where it is usually shown, in this order.

    Attributes:
        transposed: rows and columns are exchanged.
        mirrored: left and right are.
        upside_down: head and foot are.
    """

    transposed: bool = False
    mirrored: bool = False
    upside_down: bool = False

    @classmethod
    def of(cls, orientation: tuple[str, str] | None) -> FilmTurn:
        """Of a `Case.patient_orientation`; what it does not say stays."""
        across, down = (one[:1] for one in orientation or ("", ""))
        transposed = across in ("H", "F") and down in ("L", "R", "A", "P")
        if transposed:
            across, down = down, across
        return cls(transposed, across == "R", down == "H")


@dataclass
class Case:
    """One study, read and checked.

    Attributes:
        array: float32, channel first. Volumes (1, X, Y, Z) in the voxel order of the file; pictures
            (C, H, W) with C 1 (grey) or 3 (RGB), upright. CT in HU; pictures in the range of their
            file (0-255 for 8 bit, 0-65535 for 16 bit).
        affine: (4, 4) voxel index -> mm, RAS+ as NIfTI defines it; None for pictures.
        modality: that the image is segmented as.
        modality_source: who said so: 'option', 'datalist' or 'file'.
        header: the source's own header, kept so that results carry the same geometry bit for bit
            (a nibabel NIfTI header, or the `DicomSource`; None for other formats).
        warnings: what a reader of the report should know.
        full_scale: of pictures, the value of white; None for volumes.
        photometric: of grey pictures, whether low values are black (MONOCHROME2) or white (MONOCHROME1),
            DICOM PS3.3 C.7.6.3.1.2; always MONOCHROME2 of DICOM, whose own polarity was applied.
        patient_orientation: of DICOM films, where rows and columns run in the patient, PS3.3 C.7.6.1.1.1: ('L', 'F') of
            a frontal film that is shown as usual; None where nothing says so.
    """

    reference: CaseReference
    array: NDArray[np.float32]
    affine: NDArray[np.float64] | None
    modality: Modality
    modality_source: Literal["option", "datalist", "file"]
    header: Any = None
    warnings: list[str] = field(default_factory=list)
    full_scale: float | None = None
    photometric: Photometric = "MONOCHROME2"
    patient_orientation: tuple[str, str] | None = None

    @property
    def film_turn(self) -> FilmTurn | None:
        """How a film is brought to where it is usually shown; None where it stands so or nothing says how it stands."""
        turn = FilmTurn.of(self.patient_orientation)
        return None if turn == FilmTurn() else turn

    @property
    def states_sides(self) -> bool:
        """Whether a film says where the patient's left and right are."""
        return any(one[0] in "LR" for one in self.patient_orientation or ())

    @property
    def means_patient(self) -> bool:
        """Whether left and right in the prompt are the patient's: of a report, or of a film that states sides."""
        reported = bool(self.reference.prompt) and self.reference.prompt_source == "DICOM SR"
        return self.modality == "X-ray" and (reported or self.states_sides)

    @property
    def is_volume(self) -> bool:
        return self.affine is not None

    @property
    def source_series(self) -> dict[str, Any] | None:
        """What identifies the DICOM series for a report, nothing of the patient; None for other formats."""
        return self.header.summary() if isinstance(self.header, DicomSource) else None

    @property
    def spacing(self) -> tuple[float, ...] | None:
        """Voxel edge lengths in mm along the array's spatial axes; None for pictures."""
        if self.affine is None:
            return None
        return tuple(float(edge) for edge in np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def head_foot_axis(self) -> int | None:
        """The array's spatial axis that runs closest to the body's long axis; None for pictures."""
        if self.affine is None:
            return None
        return int(np.flatnonzero(np.isin(nibabel.aff2axcodes(self.affine), ["S", "I"]))[0])
