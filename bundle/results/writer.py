"""One prediction as a folder of files that appears whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle.atomic import replace_folder
from bundle.cases.dicom.source import DicomSource
from bundle.cases.errors import CaseError
from bundle.results.files.images import BYTE_SLOPE, to_bytes, write_nifti, write_numbers, write_png
from bundle.results.page.case import write_case_page
from bundle.results.pictures.preview import write_preview
from bundle.results.prediction import Prediction
from bundle.results.report import build_report, to_plain, write_json
from bundle.results.result_files import ReportAdditions, ResultWriter, known_files


def write_prediction(
    prediction: Prediction,
    output_dir: Path,
    elapsed_seconds: float | None = None,
    writers: Sequence[ResultWriter] = (),
) -> dict[str, Any]:
    """Write mask, probability, uncertainty, preview, report and page to `output_dir`/<case id>/.

    Volumes become NIfTI, two-dimensional images PNG, and their numbered cells instances.tif. An older folder of the
    same case is replaced as a whole.
    Identical predictions give identical bytes.

    Args:
        prediction: what to write.
        output_dir: the run's folder; created when it is missing.
        elapsed_seconds: how long the case took, for the report.
        writers: of further files (DICOM SEG, say).

    Returns:
        "files": their names relative to `output_dir`, with forward slashes; "report": the report's content;
        "notes": the warnings of `writers`, which are in the report too.

    Raises:
        CaseError: a folder of that name holds something else, which would be lost.
        OSError: naming the file, when it cannot be written; nothing of the case is left behind.
        ValueError: when the prediction holds a value that is not finite or a label without a name, or the
            case id is no folder name.
    """
    write_maps = _write_volume if prediction.case.is_volume else _write_image
    return write_case(prediction, output_dir, elapsed_seconds, writers, write_maps)


def write_case(
    prediction: Prediction,
    output_dir: Path,
    elapsed_seconds: float | None,
    writers: Sequence[ResultWriter],
    write_maps: Callable[[Prediction, Path], Mapping[str, Any] | None],
) -> dict[str, Any]:
    """As `write_prediction`.

    Args:
        write_maps: writes mask, probability and uncertainty; may give entries of the report that replace its own.
    """
    case_id = prediction.case.reference.id
    with replace_folder(_folder_for(case_id, output_dir, writers)) as folder:
        own = write_maps(prediction, folder) or {}
        additions = [writer(prediction, folder) or ReportAdditions() for writer in writers]
        notes = [text for addition in additions for text in addition.warnings]
        prediction = replace(prediction, warnings=[*prediction.warnings, *notes])
        report = build_report(prediction, elapsed_seconds) | to_plain(own)
        for addition in additions:
            report |= to_plain(addition.entries)
        write_preview(prediction, report, folder / "preview.png")
        write_json(folder / "report.json", report)
        write_case_page(prediction, report, folder, known_files(writers))
        files = sorted(f"{case_id}/{path.name}" for path in folder.iterdir())
    return {"files": files, "report": report, "notes": notes}


def _folder_for(case_id: str, output_dir: Path, writers: Sequence[ResultWriter]) -> Path:
    """The folder of a case's results, which is free or holds those of an earlier run and nothing else."""
    if Path(case_id).name != case_id or case_id in {"", ".", ".."}:
        raise ValueError(f"{case_id!r} cannot be used as a folder name")
    folder = output_dir / case_id
    if folder.exists():
        names = {path.name for path in folder.iterdir() if path.is_file()}
        others = sum(1 for _ in folder.iterdir()) - len(names)
        if "report.json" not in names or others or not names <= set(known_files(writers)):
            problem = "is there already and is not a result of an earlier run"
            raise CaseError(folder, problem, "give another output folder")
    return folder


def _write_volume(prediction: Prediction, folder: Path) -> None:
    affine, header = prediction.case.affine, prediction.case.header
    assert affine is not None
    if isinstance(header, DicomSource):
        header = None  # a DICOM series has no NIfTI header to carry over: the affine says all
    shape = prediction.mask.shape
    channels = len(prediction.labels)
    probability = _probability_bytes(prediction)
    uncertainty = (to_bytes(one) for one in np.moveaxis(prediction.uncertainty, -1, 0))
    mask = np.moveaxis(prediction.mask, -1, 0)
    write_nifti(folder / "mask.nii.gz", shape, mask, affine, header)
    probability_shape = shape if channels < 2 else (*shape, channels)
    path = folder / "probability.nii.gz"
    write_nifti(path, probability_shape, probability, affine, header, BYTE_SLOPE)
    write_nifti(folder / "uncertainty.nii.gz", shape, uncertainty, affine, header, BYTE_SLOPE)


def _probability_bytes(prediction: Prediction) -> Iterator[NDArray[np.uint8]]:
    """One structure after the other; zeros when nothing could be asked for."""
    for channel in range(len(prediction.labels)):
        for _, block in prediction.probability_blocks(channel):
            yield to_bytes(block)
    if not prediction.labels:
        yield np.zeros_like(prediction.mask)


def _write_image(prediction: Prediction, folder: Path) -> None:
    write_png(folder / "mask.png", prediction.mask)
    if prediction.instances is not None:
        write_numbers(folder / "instances.tif", prediction.instances.numbers)
    write_png_maps(prediction, folder)


def write_png_maps(prediction: Prediction, folder: Path) -> None:
    """Write probability.png and uncertainty.png of a two-dimensional image."""
    write_png(folder / "probability.png", to_bytes(np.asarray(prediction.probability).sum(axis=0)))
    write_png(folder / "uncertainty.png", to_bytes(prediction.uncertainty))
