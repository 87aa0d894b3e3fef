"""A DICOM whole-slide image is one slide, whatever its files are called, and is read right or refused in a sentence."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit, generate_uid

from bundle.cases import CaseError, collect_cases, read_case
from bundle.cases.collect import collect
from bundle.cases.slides import Slide, open_slide
from bundle.phantoms import histology_phantom
from tests.support.dicom_files import film, save
from tests.support.dicom_slides import encoded, slide_level, write_dicom_slide

pytest.importorskip("openslide", reason="the extra 'slides' is not installed")


@pytest.fixture(scope="module")
def levels() -> list[NDArray[np.uint8]]:
    image = np.tile(histology_phantom(1, size=400).image, (2, 3, 1))
    return [image, image.reshape(200, 4, 300, 4, 3).mean(axis=(1, 3)).round().astype(np.uint8)]


def opened(source: Path) -> Slide:
    [reference], failures = collect_cases(source)
    assert not failures
    return open_slide(reference.image, None, reference.series)


def through_jpeg(image: NDArray[np.uint8], tile: int = 256) -> NDArray[np.uint8]:
    """What is left of an image in JPEG tiles, by Pillow."""
    result = image.copy()
    for top in range(0, len(image), tile):
        for left in range(0, image.shape[1], tile):
            part = Image.fromarray(image).crop((left, top, left + tile, top + tile))
            decoded = np.asarray(Image.open(io.BytesIO(encoded(part, JPEGBaseline8Bit))))
            place = result[top : top + tile, left : left + tile]
            place[:] = decoded[: place.shape[0], : place.shape[1]]
    return result


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit])
def test_every_level_is_read_as_it_was_written(
    levels: list[NDArray[np.uint8]], tmp_path: Path, syntax: str, sparse: bool
) -> None:
    write_dicom_slide(tmp_path / "slide", levels, syntax=syntax, sparse=sparse)
    with opened(tmp_path / "slide") as slide:
        assert slide.pyramid.format == "DICOM" and slide.pyramid.sizes == [(1200, 800), (300, 200)]
        assert slide.mpp == pytest.approx((0.25, 0.25)) and slide.mpp_source == "file"
        for image, mpp in zip(levels, (0.25, 1.0), strict=True):
            if syntax == JPEGBaseline8Bit:
                image = through_jpeg(image)
            read = slide.read(slide.grid(mpp), 37, 41, 250, 150)
            far = np.abs(read.astype(int) - image[41:191, 37:287])
            # two decoders of JPEG differ by rounding
            assert far.max() <= (4 if syntax == JPEGBaseline8Bit else 0)


def test_tiles_that_were_not_scanned_are_white(levels: list[NDArray[np.uint8]], tmp_path: Path) -> None:
    write_dicom_slide(tmp_path / "slide", levels[:1], sparse=True, absent={(1, 2)})
    with opened(tmp_path / "slide") as slide:
        expected = levels[0].copy()
        expected[256:512, 512:768] = 255
        assert np.array_equal(slide.read(slide.grid(0.25), 0, 0, 1200, 800), expected)


def test_a_folder_with_slides_gives_a_case_each(levels: list[NDArray[np.uint8]], tmp_path: Path) -> None:
    first, *_ = write_dicom_slide(tmp_path / "a", levels)
    for flavor in ("LABEL", "OVERVIEW", "THUMBNAIL"):
        part = slide_level(levels[1], 8.0, first.SeriesInstanceUID, first.StudyInstanceUID, flavor=flavor)
        save(part, tmp_path / "a" / flavor.lower())
    write_dicom_slide(tmp_path / "b", levels)
    for path in (tmp_path / "b").iterdir():
        path.rename(tmp_path / "a" / f"b{path.name}")
    save(film(np.zeros((64, 64), np.uint8)), tmp_path / "a" / "film.dcm")
    found = collect(tmp_path / "a")
    slides = [case for case in found.references if case.series is not None and case.series.is_slide]
    assert len(found.references) == 3 and len({case.id for case in slides}) == 2
    assert sorted(len(case.series.files) for case in slides if case.series is not None) == [2, 2]
    assert sorted(str(one).split("/")[-1] for one in found.excluded) == [
        "label is the label of a slide.",
        "overview is an overview of a slide.",
        "thumbnail is a thumbnail of a slide.",
    ]
    # every slide has these: no report need tell
    assert all(case.notes == () for case in slides)
    for case in slides:
        with open_slide(case.image, None, case.series) as slide:
            assert np.array_equal(slide.read(slide.grid(0.25), 0, 0, 1200, 800), levels[0])
        with pytest.raises(CaseError, match="segment it, or cut it into pictures"):
            read_case(case)


def test_levels_in_folders_apart_and_copies_are_one_slide(
    levels: list[NDArray[np.uint8]], tmp_path: Path
) -> None:
    write_dicom_slide(tmp_path / "slide", levels)
    (tmp_path / "slide" / "more").mkdir()
    (tmp_path / "slide" / "1").rename(tmp_path / "slide" / "more" / "1")
    shutil.copy(tmp_path / "slide" / "0", tmp_path / "slide" / "copy of 0")
    with opened(tmp_path / "slide") as slide:
        assert slide.pyramid.sizes == [(1200, 800), (300, 200)]
        assert np.array_equal(slide.read(slide.grid(0.25), 0, 0, 1200, 800), levels[0])


def test_a_slide_without_its_finest_level_says_so(levels: list[NDArray[np.uint8]], tmp_path: Path) -> None:
    write_dicom_slide(tmp_path / "slide", levels)
    with opened(tmp_path / "slide") as slide:
        assert slide.pyramid.notes == []
    with opened(tmp_path / "slide" / "1") as slide:
        assert slide.pyramid.notes[0].startswith("The slide's files do not hold its full resolution")
        assert slide.mpp == pytest.approx((1.0, 1.0))


def changed(**attributes: Any) -> Callable[[Path, Any], object]:
    def change(path: Path, dataset: Any) -> None:
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)
        save(dataset, path)

    return change


def cut(share: float) -> Callable[[Path, Any], object]:
    return lambda path, _: path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def without_spacing(path: Path, dataset: Any) -> None:
    (path.parent / "1").unlink()
    del dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    save(dataset, path)


def other_copy(path: Path, _: Any) -> None:
    (path.parent / "copy").write_bytes(path.read_bytes() + b"\0\0")


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (cut(0.2), r"slide: is corrupt or truncated; copy or export it again\.$"),
        (changed(SamplesPerPixel=1), r"0: is not a slide in colour of 8 bits a channel; export it as RGB\.$"),
        (changed(BitsAllocated=16), "is not a slide in colour of 8 bits a channel"),
        (changed(TotalPixelMatrixFocalPlanes=3), "0: is a slide of several focal planes; export one of them"),
        (changed(NumberOfOpticalPaths=2), "is a slide of several stains"),
        (changed(ConcatenationUID=generate_uid()), "is a part of a level that is split over files; join"),
        (changed(TotalPixelMatrixRows=None), "does not say how large its level is"),
        (changed(TotalPixelMatrixColumns=700), "0: has 20 tiles, but is of a size for 12; copy it again"),
        (changed(TotalPixelMatrixRows=1100), "0: has 20 tiles, but is of a size for 25"),
        (changed(TotalPixelMatrixRows=1000), r"1: is a level of another shape than the slide; remove it"),
        (without_spacing, "does not say how many micrometres a pixel has; give slide_mpp"),
        (other_copy, "copy: has the UID of 0, but is not the same; remove one of them"),
    ],
)
def test_what_is_broken_is_refused_in_one_sentence(
    levels: list[NDArray[np.uint8]], tmp_path: Path, break_it: Any, sentence: str
) -> None:
    dataset, _ = write_dicom_slide(tmp_path / "slide", levels)
    break_it(tmp_path / "slide" / "0", dataset)
    with pytest.raises(CaseError, match=sentence) as raised, opened(tmp_path / "slide") as slide:
        slide.read(slide.grid(0.25), 0, 0, 1200, 800)
    assert "\n" not in str(raised.value) and "Sorrow" not in str(raised.value)


def test_a_level_that_openslide_passes_over_is_named(
    levels: list[NDArray[np.uint8]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bundle.cases.slides.pyramids import OpenSlidePyramid

    write_dicom_slide(tmp_path / "slide", levels)
    build = OpenSlidePyramid.__init__

    def forgetful(self: Any, *arguments: Any) -> None:
        build(self, *arguments)
        self.sizes = self.sizes[1:]

    monkeypatch.setattr(OpenSlidePyramid, "__init__", forgetful)
    with pytest.raises(CaseError, match=r"slide/0: cannot be read as a level of its slide"):
        opened(tmp_path / "slide")
