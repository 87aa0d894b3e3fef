"""The page of one case: its slices with the mask over them, sizes, probabilities, warnings and files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from bundle.results.page.histogram import BINS, Histogram, probability_histogram
from bundle.results.page.rendering import render
from bundle.results.page.slices import image_stacks
from bundle.results.page.volume import viewer_volume
from bundle.results.pictures.preview import PANEL_KEY
from bundle.results.pictures.windows import display_window
from bundle.results.prediction import Prediction
from bundle.results.result_files import PAGE, THUMBNAIL, VIEWER_DATA, ResultFile

_THUMBNAIL_EDGE, _THUMBNAIL_QUALITY = 176, 70


def write_case_page(
    prediction: Prediction, report: Mapping[str, Any], folder: Path, known: Mapping[str, ResultFile]
) -> None:
    """Write index.html, thumbnail.jpg and, for volumes, viewer.js to the case's folder.

    The page holds its images itself. For its 3D viewer it loads viewer.js and the run's viewer/niivue.js, for its
    links to other cases the run's viewer/cases.js; it does without where these are missing.

    Args:
        prediction: what is shown.
        report: its report.
        folder: of the case, with all its other files.
        known: name -> what is said of a file.

    Raises:
        OSError: when a file cannot be written.
    """
    files = [
        (known.get(path.name, ResultFile(path.name)), path.stat().st_size)
        for path in sorted(folder.iterdir())
    ]
    _write_thumbnail(folder)
    viewer = viewer_volume(prediction) if prediction.case.is_volume else None
    if viewer is not None:
        (folder / VIEWER_DATA).write_text(viewer.script(), encoding="utf-8")
    stacks = image_stacks(prediction)
    page = render(
        "case",
        loads_scripts=True,
        report=report,
        files=files,
        stacks=stacks,
        content={
            "stacks": [stack.content() for stack in stacks],
            "structures": [
                {"value": value, "name": name, "colour": prediction.structures.colour(name)}
                for value, name in prediction.labels.items()
            ],
        },
        histograms=_histograms(prediction),
        colours={name: prediction.structures.colour(name) for name in prediction.labels.values()},
        bins=BINS,
        window=display_window(prediction).note,
        viewer=viewer,
    )
    (folder / PAGE).write_text(page, encoding="utf-8", errors="replace")


def _write_thumbnail(folder: Path) -> None:
    """The first mask panel of the preview; nothing where there is no preview."""
    try:
        with Image.open(folder / "preview.png") as preview:
            left, top, right, bottom = (int(edge) for edge in preview.info[PANEL_KEY].split(","))
            thumbnail = preview.convert("RGB").crop((left, top, right, bottom))
    except (OSError, KeyError):
        return
    thumbnail.thumbnail((_THUMBNAIL_EDGE, _THUMBNAIL_EDGE))
    thumbnail.save(folder / THUMBNAIL, quality=_THUMBNAIL_QUALITY, optimize=True)


def _histograms(prediction: Prediction) -> dict[str, Histogram]:
    """Of each structure that was asked for and is anywhere at least thinkable."""
    histograms = {
        name: probability_histogram(
            (block, prediction.mask[..., part] == value)
            for part, block in prediction.probability_blocks(channel)
        )
        for channel, (value, name) in enumerate(prediction.labels.items())
    }
    return {name: one for name, one in histograms.items() if any(one.inside) or any(one.outside)}
