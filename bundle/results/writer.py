"""One prediction as a folder of files that appears whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle.atomic import replace_folder
from bundle.cases.case import CaseError
from bundle.cases.dicom.source import DicomSource
from bundle.results.files.images import BYTE_SLOPE, to_bytes, write_nifti, write_nifti_blocks, write_png
from bundle.results.page.case import write_case_page
from bundle.results.pictures.preview import write_preview
from bundle.results.prediction import Prediction
from bundle.results.report import build_report, to_plain, write_json

_NAMES = (
    "mask",
    "probability",
    "uncertainty",
    "preview",
    "report",
    "seg",
    "sr",
    "index",
    "thumbnail",
    "viewer",
)


@dataclass(frozen=True)
class Supplement:
    """What a further writer adds to the report.

    Attributes:
        entries: keys and values of report.json.
        warnings: what its reader should know.
    """

    entries: Mapping[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()


Companion = Callable[[Prediction, Path], Supplement | None]


def write_prediction(
    prediction: Prediction,
    output_dir: Path,
    elapsed_seconds: float | None = None,
    companions: Sequence[Companion] = (),
) -> dict[str, Any]:
    """Write mask, probability, uncertainty, preview, report and page to `output_dir`/<case id>/.

    Volumes become NIfTI, pictures PNG. An older folder of the same case is replaced as a whole. Identical
    predictions give identical bytes.

    Args:
        prediction: what to write.
        output_dir: the run's folder; created when it is missing.
        elapsed_seconds: how long the case took, for the report.
        companions: further writers (DICOM SEG, say); each is called with the prediction and the folder to
            write into, before the folder takes its final name, and may have something to add to the report.

    Returns:
        "files": their names relative to `output_dir`, with forward slashes; "report": the report's content.

    Raises:
        CaseError: a folder of that name holds something else, which would be lost.
        OSError: naming the file, when it cannot be written; nothing of the case is left behind.
        ValueError: when the prediction holds a value that is not finite or a label without a name, or the
            case id is no folder name.
    """
    case_id = prediction.case.reference.id
    with replace_folder(folder_for(case_id, output_dir)) as folder:
        prediction, entries = supplemented(prediction, folder, companions)
        report = {**build_report(prediction, elapsed_seconds), **entries}
        (_write_volume if prediction.case.is_volume else _write_picture)(prediction, folder)
        write_preview(prediction, report, folder / "preview.png")
        write_json(folder / "report.json", report)
        write_case_page(prediction, report, folder)
        files = files_of(folder, case_id)
    return {"files": files, "report": report}


def supplemented(
    prediction: Prediction, folder: Path, companions: Sequence[Companion]
) -> tuple[Prediction, dict[str, Any]]:
    """Call the companions; the prediction with their warnings, and their entries of the report."""
    supplements = [companion(prediction, folder) or Supplement() for companion in companions]
    noted = [text for supplement in supplements for text in supplement.warnings]
    entries = {key: value for one in supplements for key, value in to_plain(one.entries).items()}
    return replace(prediction, warnings=[*prediction.warnings, *noted]), entries


def folder_for(case_id: str, output_dir: Path) -> Path:
    """The folder of a case's results, which is free or holds those of an earlier run.

    Raises:
        CaseError: it holds something else, which would be lost.
        ValueError: the case id is no folder name.
    """
    if Path(case_id).name != case_id or case_id in {"", ".", ".."}:
        raise ValueError(f"{case_id!r} cannot be used as a folder name")
    folder = output_dir / case_id
    if folder.exists() and not _is_result(folder):
        problem = "is there already and is not a result of an earlier run"
        raise CaseError(folder, problem, "give another output folder")
    return folder


def files_of(folder: Path, case_id: str) -> list[str]:
    """The files in a case's folder, by their names relative to the run's."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return [f"{case_id}/{name}" for name in names]


def _is_result(folder: Path) -> bool:
    """Whether a folder holds what this module writes and nothing else, so that it may be replaced."""
    if not (folder / "report.json").is_file():
        return False
    return all(path.is_file() and path.name.split(".")[0] in _NAMES for path in folder.iterdir())


def _write_volume(prediction: Prediction, folder: Path) -> None:
    affine, header = prediction.case.affine, prediction.case.header
    assert affine is not None
    if isinstance(header, DicomSource):
        header = None  # a DICOM series has no NIfTI header to carry over: the affine says all
    shape = prediction.mask.shape
    channels = len(prediction.labels)
    probability = _probability_bytes(prediction)
    uncertainty = (to_bytes(one) for one in np.moveaxis(prediction.uncertainty, -1, 0))
    write_nifti(folder / "mask.nii.gz", prediction.mask, affine, header)
    write_nifti_blocks(
        folder / "probability.nii.gz",
        shape if channels < 2 else (*shape, channels),
        probability,
        affine,
        header,
        BYTE_SLOPE,
    )
    write_nifti_blocks(folder / "uncertainty.nii.gz", shape, uncertainty, affine, header, BYTE_SLOPE)


def _probability_bytes(prediction: Prediction) -> Iterator[NDArray[np.uint8]]:
    """One structure after the other; zeros when nothing could be asked for."""
    for channel in range(len(prediction.labels)):
        for _, block in prediction.probability_blocks(channel):
            yield to_bytes(block)
    if not prediction.labels:
        yield np.zeros_like(prediction.mask)


def _write_picture(prediction: Prediction, folder: Path) -> None:
    write_png(folder / "mask.png", prediction.mask)
    write_png(folder / "probability.png", to_bytes(np.asarray(prediction.probability).sum(axis=0)))
    write_png(folder / "uncertainty.png", to_bytes(prediction.uncertainty))
