"""A slide tile by tile gives what its picture gives as a whole, and the results hold together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from bundle.cases import CaseError, CaseReference, collect_cases
from bundle.cases.modality_settings import HistologySettings, ModalitySettings
from bundle.cases.slides import open_slide
from bundle.cases.structures import Structures
from bundle.inference import CaseDataset, CaseEvaluator, SegmentationInferer, SlideSegmenter
from bundle.inference.entries import CaseResults
from bundle.phantoms.slide import write_slide_phantom
from bundle.results import DicomResults, GeoJsonResults, Prediction, write_index, write_slide
from bundle.results.instances import find_instances
from bundle.results.pictures.preview import facts_of
from bundle.results.pictures.views import select_views
from bundle.results.slide_prediction import SlidePrediction
from tests.support.dicom_slides import write_dicom_slide
from tests.support.fake_segmenter import FakeSegmenter

openslide = pytest.importorskip("openslide", reason="the extra 'slides' is not installed")
pytest.importorskip("imagecodecs", reason="the extra 'slides' is not installed")

STRUCTURES = Structures([{"name": "liver", "modality": "CT"}, {"name": "nucleus", "modality": "H&E"}])


def dark() -> FakeSegmenter:
    """Finds what is dark in red, pixel by pixel, so that tiles cannot matter."""

    def scores(image: Tensor, _: Sequence[str]) -> Tensor:
        nothing = torch.zeros_like(image[:, :1])
        return torch.cat([nothing, nothing - torch.inf, (0.55 - image[:, :1]) * 20.0], dim=1)

    return FakeSegmenter(3, scores)


def segmenter(**options: Any) -> SlideSegmenter:
    structures = options.pop("structures", STRUCTURES)
    histology = HistologySettings(
        resolution=options.pop("mpp", 0.5), instances=options.pop("instances", False)
    )
    inferer = SegmentationInferer(
        structures, ModalitySettings(histology=histology), batch_size=3, tile_size=options.pop("tile", 128)
    )
    return SlideSegmenter(structures, inferer, **options)


def cells_probability(prediction: SlidePrediction) -> NDArray[np.uint8]:
    """Of `dark`, from what the slide shows."""
    with open_slide(prediction.case.reference.image) as slide:
        red = slide.read(prediction.grid, 0, 0, prediction.grid.width, prediction.grid.height)[..., 0]
    scores = (0.55 - red.astype(np.float32) / 255.0) * 20.0
    return np.rint(255.0 / (1.0 + np.exp(-np.abs(scores)))).astype(np.uint8)


@pytest.fixture(scope="module")
def slide_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slides") / "slide.tif"
    write_slide_phantom(path, 2200, 1600, tissue=0.35)
    return path


@pytest.fixture(scope="module")
def results(slide_file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    prediction = segmenter()(CaseReference("slide", slide_file), dark())
    output = tmp_path_factory.mktemp("out")
    return output, write_slide(prediction, output, 1.0)


def test_tiles_give_what_the_whole_gives(slide_file: Path, results: tuple[Path, dict[str, Any]]) -> None:
    mask = tifffile.imread(results[0] / "slide" / "mask.tif")
    with open_slide(slide_file) as slide:
        grid = slide.grid(0.5)
        red = slide.read(grid, 0, 0, grid.width, grid.height)[..., 0] / 255.0
    assert mask.shape == red.shape == (800, 1100) and mask.dtype == np.uint8
    sure = np.abs(red - 0.55) > 1e-4
    assert np.array_equal((mask == 2)[sure], (red < 0.55)[sure]) and (mask == 2).any()


def test_the_mask_is_a_pyramid_for_other_readers(results: tuple[Path, dict[str, Any]]) -> None:
    path = results[0] / "slide" / "mask.tif"
    with tifffile.TiffFile(path) as tiff:
        page: Any = tiff.pages[0]
        assert page.is_tiled and page.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
        whole = page.asarray()
        assert np.array_equal(tiff.pages[1].asarray(), whole[::2, ::2])
    with openslide.OpenSlide(str(path)) as other:
        assert other.level_dimensions == ((1100, 800), (550, 400), (275, 200))
        assert float(other.properties[openslide.PROPERTY_NAME_MPP_X]) == pytest.approx(0.5)
        region = np.asarray(other.read_region((300, 200), 0, (400, 300)))[..., 0]
        assert np.array_equal(region, whole[200:500, 300:700])


def test_the_report_measures_the_whole_mask(results: tuple[Path, dict[str, Any]]) -> None:
    output, result = results
    report = json.loads((output / "slide" / "report.json").read_text())
    assert report == result["report"]
    mask = tifffile.imread(output / "slide" / "mask.tif")
    nuclei = report["labels"]["nucleus"]
    assert nuclei["pixels"] == (mask == 2).sum()
    assert nuclei["area_mm2"] == pytest.approx((mask == 2).sum() * 0.25e-6, abs=1e-6)
    count = ndimage.label(mask == 2)[1]
    polygons = json.loads((output / "slide" / "mask.geojson").read_text())["features"]
    assert nuclei["count"] == count == len(polygons)
    corners = np.array([point for one in polygons for point in one["geometry"]["coordinates"][0]])
    rows, columns = np.nonzero(mask == 2)
    assert corners.min(axis=0) == pytest.approx([2 * columns.min(), 2 * rows.min()])
    assert corners.max(axis=0) == pytest.approx([2 * columns.max() + 2, 2 * rows.max() + 2])
    assert report["slide"]["mpp"] == [0.25, 0.25] and report["slide"]["mask_mpp"] == [0.5, 0.5]
    # of a small slide the overview is finer than tissue is looked for
    assert report["slide"]["overview_mpp"] == pytest.approx([550 / 1024, 400 / 745], abs=1e-6)
    assert report["shape"] == [800, 1100] and report["found"] is True
    tiles = 1 + -(-(800 - 128) // 96), 1 + -(-(1100 - 128) // 96)
    assert 0 < report["slide"]["tiles"] < tiles[0] * tiles[1]


def test_cells_at_borders_of_tiles_are_whole_and_counted_once(slide_file: Path, tmp_path: Path) -> None:
    counts = []
    for tile in (128, 384, 2048):
        prediction = segmenter(instances=True, tile=tile)(CaseReference("slide", slide_file), dark())
        cells = prediction.instances
        assert cells is not None and cells.mpp == pytest.approx((0.5, 0.5))
        expected = find_instances(prediction.mask, cells_probability(prediction), [2], pixel=0.5, block=4096)
        assert np.array_equal(cells.numbers > 0, expected.numbers > 0)
        counts.append((len(cells.pixels), len(expected.pixels)))
    assert counts == [counts[0]] * 3 and counts[0][0] == counts[0][1] > 100
    report = write_slide(prediction, tmp_path, 1.0)["report"]
    polygons = json.loads((tmp_path / "slide" / "mask.geojson").read_text())["features"]
    nuclei = report["labels"]["nucleus"]
    assert nuclei["count"] == len(polygons) == counts[0][0]
    assert nuclei["per_mm2_tissue"] == pytest.approx(counts[0][0] / report["slide"]["tissue_mm2"], rel=1e-4)
    areas = [one["properties"]["measurements"]["Area µm^2"] for one in polygons]
    assert nuclei["median_area_um2"] == pytest.approx(np.median(areas))
    page = (tmp_path / "slide" / "index.html").read_text(encoding="utf-8")
    assert f"{counts[0][0]:,} cells" in page and "per mm² of tissue" in page


def test_the_kind_of_a_structure_says_whether_it_is_counted(slide_file: Path, tmp_path: Path) -> None:
    structures = Structures(
        [{"name": "liver", "modality": "CT"}, {"name": "gland", "modality": "H&E", "kind": "hollow"}]
    )
    prediction = segmenter(instances=True, structures=structures)(CaseReference("slide", slide_file), dark())
    assert prediction.instances is None
    gland = write_slide(prediction, tmp_path, 1.0)["report"]["labels"]["gland"]
    assert gland["count"] == ndimage.label(prediction.mask == 2)[1] and "median_area_um2" not in gland


def test_the_preview_shows_a_small_slide_up_close(slide_file: Path) -> None:
    prediction = segmenter()(CaseReference("slide", slide_file), dark())
    shown = Prediction(
        case=prediction.case,
        mask=(prediction.probability[0] > 0.5).astype(np.uint8) * 2,
        probability=prediction.probability,
        uncertainty=prediction.uncertainty,
        labels=prediction.labels,
        is_overview=True,
    )
    facts = facts_of(shown, {"slide": prediction.about})
    assert facts == ["H&E", "2,200 x 1,600", "0.25 µm"]
    whole, detail = select_views(shown)[0]
    assert whole.title == "Overview, 1024 x 745 pixels" and whole.size == (1024.0, 745.0)
    # a nucleus of 8 micrometres has many pixels
    assert detail.title == "Detail of it, 256 x 256 pixels" and detail.mask.any()


def test_the_index_has_a_row_for_it(results: tuple[Path, dict[str, Any]]) -> None:
    output, result = results
    names = {name.rsplit("/", 1)[-1] for name in result["files"]}
    assert names >= {
        "mask.tif",
        "mask.geojson",
        "preview.png",
        "report.json",
        "index.html",
        "probability.png",
    }
    entry = {"id": "slide", "input": "slide.tif", "status": "done", "error": None, "files": result["files"]}
    page = write_index(output, {"cases": [{**entry, "seconds": 1.0}]}).read_text(encoding="utf-8")
    assert "mask.geojson" in page and "mm²" in page


def test_a_slide_that_cannot_be_used_costs_itself_alone(slide_file: Path, tmp_path: Path) -> None:
    write_slide_phantom(tmp_path / "glass.tif", 1024, 1024, tissue=0.0)
    write_slide_phantom(tmp_path / "bare.tif", 1024, 1024, mpp=None)
    files = {"glass": tmp_path / "glass.tif", "bare": tmp_path / "bare.tif", "good": slide_file}
    references = [CaseReference(name, path) for name, path in files.items()]
    references.append(CaseReference("film", slide_file, modality="X-ray"))
    entries: dict[str, Any] = {}
    (tmp_path / "out").mkdir()
    results = CaseResults(tmp_path / "out")

    class Keep:
        def attach(self, engine: Any) -> None:
            from ignite.engine import Events

            engine.add_event_handler(Events.ITERATION_COMPLETED, self)

        def __call__(self, engine: Any) -> None:
            entry = results(engine.state.output)
            entries[entry["id"]] = entry

    def never(item: Any) -> Any:
        raise AssertionError("a slide was read as a picture")

    whole: Any = never
    CaseEvaluator(
        CaseDataset(references, whole),
        dark(),
        segmenter().inferer,
        never,
        val_handlers=[Keep()],
        slides=segmenter(),
    ).run()
    assert {name: entry["status"] for name, entry in entries.items()} == {
        "glass": "failed",
        "bare": "failed",
        "good": "done",
        "film": "failed",
    }
    assert "shows no tissue" in entries["glass"]["error"]
    assert "does not say how many micrometres" in entries["bare"]["error"]
    assert "the modality is stated as X-ray" in entries["film"]["error"]
    assert set(entries["good"]["checks"]) == set(entries["good"]["files"])


def test_a_dicom_slide_gives_the_mask_of_its_tiff(
    slide_file: Path, results: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    with tifffile.TiffFile(slide_file) as tiff:
        levels = [page.asarray() for page in tiff.pages]
    dataset, *_ = write_dicom_slide(tmp_path / "Sorrow" / "slide", levels)
    [reference], _ = collect_cases(tmp_path)
    output = tmp_path / "out"
    output.mkdir()
    for options, uids_are_those_of_the_source in (({}, True), ({"identifiers": "replace"}, False)):
        writers = [DicomResults(**options), GeoJsonResults(images=True)]  # type: ignore[arg-type]
        report = write_slide(segmenter()(reference, dark()), output, 1.0, writers)["report"]
        folder = output / reference.id
        mask = tifffile.imread(folder / "mask.tif")
        assert np.array_equal(mask, tifffile.imread(results[0] / "slide" / "mask.tif"))
        assert (folder / "mask.geojson").read_bytes() == (results[0] / "slide" / "mask.geojson").read_bytes()
        expected = results[1]["report"]
        assert report["labels"] == expected["labels"]
        assert report["slide"] == {**expected["slide"], "format": "DICOM"}
        assert (report["source_series"]["series_instance_uid"] == dataset.SeriesInstanceUID) is (
            uids_are_those_of_the_source
        )
        # GeoJSON of the overview would be of other pixels, and a segmentation of other tiles
        assert report["warnings"] == [
            "No DICOM objects are written of whole-slide images: mask.tif and mask.geojson hold the mask."
        ]
        assert "geojson" not in report and "dicom" not in report
        for path in folder.iterdir():
            assert b"Sorrow" not in path.read_bytes() and b"HX-48151" not in path.read_bytes()


def test_options_are_checked(slide_file: Path) -> None:
    with pytest.raises(ValueError, match="slide_mpp must be"):
        segmenter(slide_mpp=0.0)
    with pytest.raises(ValueError, match="histology#resolution must be"):
        segmenter(mpp="0.5")
    inferer = SegmentationInferer(
        STRUCTURES, ModalitySettings(histology=HistologySettings(stain_borders=True))
    )
    with pytest.raises(CaseError, match="set histology#stain_borders to False"):
        SlideSegmenter(STRUCTURES, inferer)(CaseReference("slide", slide_file), dark())


@pytest.mark.parametrize(
    "box",
    [(0, 0, 2200, 1600), (513, 301, 1202, 900), (700, 701, 703, 702), (1900, 1500, 9000, 9000), None],
    ids=["all", "odd", "a few pixels", "over the edge", "none"],
)
def test_a_region_is_what_the_whole_slide_has_there(
    slide_file: Path, results: tuple[Path, dict[str, Any]], box: tuple[int, int, int, int] | None
) -> None:
    whole = tifffile.imread(results[0] / "slide" / "mask.tif")
    found = segmenter().region(CaseReference("slide", slide_file), dark(), box)
    left, top, right, bottom = box or (0, 0, 2200, 1600)
    expected = whole[top // 2 : -(-bottom // 2), left // 2 : -(-right // 2)]
    assert np.array_equal(found.mask, expected) and found.mask.dtype == np.uint8
    assert found.offset == (left // 2 * 2, top // 2 * 2) and found.labels == {2: "nucleus"}


def test_a_region_outside_the_slide_is_refused(slide_file: Path) -> None:
    for box in ((2200, 0, 2300, 50), (10, 10, 10, 20), (-50, 0, 0, 20)):
        with pytest.raises(CaseError, match="2200 x 1600"):
            segmenter().region(CaseReference("slide", slide_file), dark(), box)
