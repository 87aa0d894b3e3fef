"""Slides are told by content, read region by region at any resolution, and refused in one sentence where broken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from bundle.cases import CaseError, collect_cases
from bundle.cases.slides import Overview, is_slide, open_slide, overview_of, tissue_mask
from bundle.phantoms import histology_phantom
from bundle.phantoms.slide import write_slide_phantom

pytest.importorskip("openslide", reason="the extra 'slides' is not installed")
pytest.importorskip("imagecodecs", reason="the extra 'slides' is not installed")


@pytest.fixture(scope="module")
def slide_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slides") / "slide.tif"
    write_slide_phantom(path, 2048, 1536, tissue=0.3)
    return path


def write_tiled(path: Path, image: NDArray[np.uint8], **options: Any) -> Path:
    tifffile.imwrite(path, image, **{"tile": (128, 128), "photometric": "rgb", "metadata": None, **options})
    return path


def test_slides_are_told_from_pictures_by_content(slide_file: Path, tmp_path: Path) -> None:
    picture = histology_phantom(0, size=256).image
    Image.fromarray(picture).save(tmp_path / "picture.tif", dpi=(300, 300))
    microscope = {"resolution": (4e4, 4e4), "resolutionunit": "CENTIMETER"}
    assert is_slide(slide_file)
    assert is_slide(write_tiled(tmp_path / "scanned.tif", picture, **microscope))
    assert not is_slide(write_tiled(tmp_path / "tiled.tif", picture))
    assert not is_slide(
        write_tiled(tmp_path / "print.tif", picture, resolution=(300, 300), resolutionunit="INCH")
    )
    assert not is_slide(tmp_path / "picture.tif")
    (tmp_path / "broken.tif").write_bytes(b"II*\0nonsense")
    assert not is_slide(tmp_path / "broken.tif")


def test_regions_are_those_of_another_reader(slide_file: Path) -> None:
    import openslide

    with open_slide(slide_file) as slide, openslide.OpenSlide(str(slide_file)) as other:
        assert [slide.width, slide.height] == [2048, 1536]
        assert slide.pyramid.sizes == list(other.level_dimensions) and len(slide.pyramid.sizes) == 3
        assert slide.mpp == pytest.approx((0.25, 0.25)) and slide.mpp_source == "file"
        for level, mpp in enumerate((0.25, 1.0, 4.0)):
            grid = slide.grid(mpp)
            left, top, width, height = grid.width // 3 + 1, grid.height // 3 + 5, 70, 50
            ours = slide.read(grid, left, top, width, height)
            corner = (left * 4**level, top * 4**level)
            theirs = np.asarray(other.read_region(corner, level, (width, height)))[..., :3]
            # two decoders of JPEG differ by rounding
            assert np.abs(ours.astype(int) - theirs).max() <= 4


def test_a_region_at_half_the_resolution_is_the_mean_of_its_pixels(tmp_path: Path) -> None:
    image = histology_phantom(1, size=512).image[:500, :390]
    path = write_tiled(tmp_path / "whole.tif", image, resolution=(4e4, 4e4), resolutionunit="CENTIMETER")
    with open_slide(path) as slide:
        grid = slide.grid(0.5)
        assert (grid.width, grid.height, grid.scale) == (195, 250, (2.0, 2.0))
        means = image.reshape(250, 2, 195, 2, 3).mean(axis=(1, 3))
        whole = slide.read(grid, 0, 0, grid.width, grid.height)
        assert np.abs(whole - means).max() <= 1.0
        part = slide.read(grid, 60, 101, 135, 149)
        assert np.array_equal(part, whole[101:, 60:])


def test_a_slide_that_was_scanned_coarser_is_enlarged(tmp_path: Path) -> None:
    image = histology_phantom(1, size=512).image[:300, :200]
    path = write_tiled(tmp_path / "coarse.tif", image, resolution=(2e4, 2e4), resolutionunit="CENTIMETER")
    with open_slide(path) as slide:
        grid = slide.grid(0.25)
        assert (grid.width, grid.height, grid.scale) == (400, 600, (0.5, 0.5))
        enlarged = slide.read(grid, 0, 0, grid.width, grid.height).astype(float)
        assert np.abs(enlarged.reshape(300, 2, 200, 2, 3).mean(axis=(1, 3)) - image).mean() < 3.0
        part = slide.read(grid, 120, 200, 160, 100)
        assert np.abs(part - enlarged[200:300, 120:280])[2:-2, 2:-2].max() <= 1.0


def test_pyramids_in_sub_ifds_and_the_units_of_ome_are_read(tmp_path: Path) -> None:
    image = histology_phantom(1, size=512).image
    path = tmp_path / "slide.ome.tif"
    about = {"axes": "YXS", "PhysicalSizeX": 250.0, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.25}
    with tifffile.TiffWriter(path, ome=True) as writer:
        options: Any = {"tile": (128, 128), "photometric": "rgb", "compression": "zlib"}
        writer.write(image, subifds=1, metadata=about, **options)
        writer.write(image[::2, ::2], subfiletype=1, **options)
    assert is_slide(path)
    with open_slide(path) as slide:
        assert slide.pyramid.format == "OME-TIFF" and slide.pyramid.sizes == [(512, 512), (256, 256)]
        assert slide.mpp == pytest.approx((0.25, 0.25))
        assert np.array_equal(slide.read(slide.grid(0.25), 100, 50, 30, 20), image[50:70, 100:130])
        assert np.array_equal(slide.read(slide.grid(0.5), 100, 50, 30, 20), image[100:140:2, 200:260:2])


def test_a_slide_without_resolution_needs_the_option(tmp_path: Path) -> None:
    write_slide_phantom(tmp_path / "bare.tif", 1024, 1024, mpp=None)
    assert is_slide(tmp_path / "bare.tif")
    with pytest.raises(CaseError, match=r"bare\.tif: does not say how many micrometres .* give slide_mpp\.$"):
        open_slide(tmp_path / "bare.tif")
    with open_slide(tmp_path / "bare.tif", mpp=0.5) as slide:
        assert slide.mpp == (0.5, 0.5) and slide.mpp_source == "option"


def test_tissue_is_found_where_it_was_put(slide_file: Path) -> None:
    with open_slide(slide_file) as slide:
        overview = overview_of(slide, 0.5)
    assert overview.image.shape == (overview.grid.height, overview.grid.width, 3) == (48, 64, 3)
    tissue = tissue_mask(overview)
    y, x = np.mgrid[:3, :4] + 0.5
    inside = ((y - 1.5) / 3) ** 2 + ((x - 2) / 4) ** 2 <= 0.3 / np.pi
    truth = np.kron(inside, np.ones((16, 16), dtype=bool))
    assert (tissue & truth).sum() / (tissue | truth).sum() > 0.8
    glass = Overview(np.full_like(overview.image, 243), overview.grid)
    assert not tissue_mask(glass).any()


def test_broken_slides_give_one_sentence(slide_file: Path, tmp_path: Path) -> None:
    whole = slide_file.read_bytes()
    with tifffile.TiffFile(slide_file) as tiff:
        offsets = tiff.pages[0].dataoffsets  # type: ignore[union-attr]
    damaged = tmp_path / "damaged.tif"
    damaged.write_bytes(whole[: offsets[3]] + bytes(offsets[-1] - offsets[3]) + whole[offsets[-1] :])
    with open_slide(damaged) as slide, pytest.raises(CaseError, match="corrupt or truncated"):
        slide.read(slide.grid(0.25), 0, 0, 2048, 1536)
    strips = tmp_path / "strips.tif"
    tifffile.imwrite(strips, np.zeros((64, 64, 3), np.uint8), photometric="rgb")
    (tmp_path / "empty.svs").write_bytes(b"")
    (tmp_path / "text.svs").write_text("not a slide")
    for path, sentence in (
        (strips, "is a slide in strips, not in tiles; save it as tiled pyramid TIFF"),
        (tmp_path / "empty.svs", "is empty"),
        (tmp_path / "text.svs", "is corrupt or truncated"),
    ):
        with pytest.raises(CaseError, match=sentence) as raised:
            open_slide(path)
        assert "\n" not in str(raised.value)


def test_folders_give_their_slides(slide_file: Path, tmp_path: Path) -> None:
    (tmp_path / "one.svs").write_bytes(slide_file.read_bytes())
    references, failures = collect_cases(tmp_path)
    assert [case.id for case in references] == ["one"] and not failures
