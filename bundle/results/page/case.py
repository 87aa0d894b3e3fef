"""The page of one case: its slices with the mask over them, sizes, probabilities, warnings and files."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from bundle.results.page.histogram import BINS, Histogram, probability_histogram
from bundle.results.page.rendering import fact_name, fact_text, render, structure_bytes, times
from bundle.results.page.slices import picture_stacks
from bundle.results.page.volume import ViewerVolume, viewer_volume
from bundle.results.pictures.preview import PANEL_KEY
from bundle.results.pictures.windows import display_window
from bundle.results.prediction import Prediction
from bundle.results.result_files import PAGE, THUMBNAIL, VIEWER_DATA, ResultFile

_THUMBNAIL_EDGE, _THUMBNAIL_QUALITY = 176, 70


def write_case_page(
    prediction: Prediction, report: Mapping[str, Any], folder: Path, known: Mapping[str, ResultFile]
) -> None:
    """Write index.html, thumbnail.jpg and, for volumes, viewer.js to the case's folder.

    The page holds its pictures itself. For its 3D viewer it loads viewer.js and the run's viewer/niivue.js, for its
    links to other cases the run's viewer/cases.js; it does without where these are missing.

    Args:
        prediction: what is shown.
        report: its report.
        folder: of the case, with all its other files.
        known: name -> what is said of a file.

    Raises:
        OSError: when a file cannot be written.
    """
    listed = [
        (path.name, known[path.name].kind if path.name in known else "", _size_text(path.stat().st_size))
        for path in sorted(folder.iterdir())
    ]
    _write_thumbnail(folder)
    viewer = viewer_volume(prediction) if prediction.case.is_volume else None
    if viewer is not None:
        (folder / VIEWER_DATA).write_text(viewer.script(), encoding="utf-8")
    stacks = picture_stacks(prediction)
    page = render(
        "case",
        loads_scripts=True,
        report=report,
        facts=_facts(report),
        files=listed,
        stacks=stacks,
        content={
            "stacks": [stack.content() for stack in stacks],
            "structures": [
                {"value": value, "name": name, "colour": structure_bytes(name)}
                for value, name in prediction.labels.items()
            ],
        },
        histograms=_histograms(prediction),
        bins=BINS,
        window=display_window(prediction).note,
        viewer=None if viewer is None else _viewer_facts(viewer, prediction),
    )
    (folder / PAGE).write_text(page, encoding="utf-8", errors="replace")


def _size_text(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{max(1, round(size / 1e3))} KB"


def _write_thumbnail(folder: Path) -> None:
    """The first mask panel of the preview; nothing where there is no preview."""
    try:
        with Image.open(folder / "preview.png") as preview:
            left, top, right, bottom = (int(edge) for edge in preview.info[PANEL_KEY].split(","))
            picture = preview.convert("RGB").crop((left, top, right, bottom))
    except (OSError, KeyError):
        return
    picture.thumbnail((_THUMBNAIL_EDGE, _THUMBNAIL_EDGE))
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=_THUMBNAIL_QUALITY, optimize=True)
    (folder / THUMBNAIL).write_bytes(buffer.getvalue())


def _facts(report: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """What is told of the case besides its results, in groups."""
    shape, spacing = report.get("shape") or [], report.get("spacing_mm")
    image = {
        "input": report.get("input"),
        "modality": report.get("modality"),
        "modality from": report.get("modality_source"),
        "size": times(shape) + (" voxels" if spacing else " pixels"),
        "voxel": times(spacing) + " mm" if spacing else None,
    }
    groups = {"Image": image, "Source series": report.get("source_series") or {}}
    groups["DICOM objects"] = report.get("dicom") or {}
    groups["Settings"] = report.get("settings") or {}
    return {
        title: {fact_name(name): fact_text(value) for name, value in entries.items() if value is not None}
        for title, entries in groups.items()
        if entries
    }


def _histograms(prediction: Prediction) -> dict[str, Histogram]:
    """Of each structure that was asked for and is anywhere at least thinkable."""
    histograms = {}
    for channel, (value, name) in enumerate(prediction.labels.items()):
        blocks = prediction.probability_blocks(channel)
        histogram = probability_histogram(
            (block, prediction.mask[..., part] == value) for part, block in blocks
        )
        if any(histogram.inside) or any(histogram.outside):
            histograms[name] = histogram
    return histograms


def _viewer_facts(viewer: ViewerVolume, prediction: Prediction) -> dict[str, Any]:
    return {
        "spacing": times(viewer.spacing),
        "shape": times(viewer.shape),
        "reduced": viewer.shape != prediction.mask.shape,
        "full": times(prediction.mask.shape),
        "size": _size_text((len(viewer.image) + len(viewer.mask)) * 4 // 3),
    }
