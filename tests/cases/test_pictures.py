"""Pictures of every kind are read upright and exactly; broken ones are refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from bundle.cases import Case, CaseError, CaseReference, read_case

RNG = np.random.default_rng(7)
GREY = RNG.integers(0, 256, (20, 31)).astype(np.uint8)
RGB = RNG.integers(0, 256, (20, 31, 3)).astype(np.uint8)


def read(path: Path) -> Case:
    return read_case(CaseReference("c", path))


def refused(path: Path, words: str) -> None:
    with pytest.raises(CaseError) as caught:
        read(path)
    message = str(caught.value)
    assert path.name in message and words in message
    assert message.endswith(".") and len(message.splitlines()) == 1


def test_grey_and_colour_are_exact(tmp_path: Path) -> None:
    for suffix, options in (
        (".png", {}),
        (".tif", {"compression": "tiff_lzw"}),
        (".bmp", {}),
        (".webp", {"lossless": True}),
    ):
        Image.fromarray(GREY).save(tmp_path / f"grey{suffix}", **options)
        Image.fromarray(RGB).save(tmp_path / f"rgb{suffix}", **options)
        grey, rgb = read(tmp_path / f"grey{suffix}"), read(tmp_path / f"rgb{suffix}")
        assert np.array_equal(grey.array, GREY[None].astype(np.float32)) and grey.modality == "X-ray"
        assert np.array_equal(rgb.array, RGB.transpose(2, 0, 1).astype(np.float32)) and rgb.modality == "H&E"
        assert grey.affine is None and grey.header is None and grey.warnings == rgb.warnings == []


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_grey_is_exact(tmp_path: Path, suffix: str) -> None:
    values = RNG.integers(0, 65536, (20, 31)).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / f"a{suffix}")
    assert np.array_equal(read(tmp_path / f"a{suffix}").array[0], values)


def test_wide_colour(tmp_path: Path) -> None:
    values = RNG.integers(0, 65536, (20, 31, 3)).astype(np.uint16)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values, photometric="rgb", compression="zlib")
    assert np.array_equal(read(path).array, values.transpose(2, 0, 1))
    tifffile.imwrite(path, values.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    assert np.array_equal(read(path).array, values.transpose(2, 0, 1))
    tifffile.imwrite(path, values, photometric="rgb", extratags=[(274, "H", 1, 6, True)])
    case = read(path)
    assert np.array_equal(case.array, np.rot90(values, -1).transpose(2, 0, 1)) and len(case.warnings) == 1


def test_other_modes(tmp_path: Path) -> None:
    bits = GREY > 127
    Image.fromarray(bits).save(tmp_path / "bits.png")
    assert np.array_equal(read(tmp_path / "bits.png").array[0], bits * 255)
    Image.fromarray(RGB).quantize(16).save(tmp_path / "palette.png")
    palette = Image.open(tmp_path / "palette.png").convert("RGB")
    assert np.array_equal(read(tmp_path / "palette.png").array, np.asarray(palette).transpose(2, 0, 1))
    Image.fromarray(RGB).convert("CMYK").save(tmp_path / "cmyk.tif")
    assert np.abs(read(tmp_path / "cmyk.tif").array - RGB.transpose(2, 0, 1)).max() <= 1
    floats = RNG.random((20, 31)).astype(np.float32)
    Image.fromarray(floats).save(tmp_path / "f.tif")
    assert np.array_equal(read(tmp_path / "f.tif").array[0], floats)
    Image.fromarray(np.repeat(GREY[..., None], 3, axis=2)).save(tmp_path / "equal.png")
    assert read(tmp_path / "equal.png").array.shape == (1, 20, 31)
    Image.fromarray(GREY).save(tmp_path / "really.png")
    (tmp_path / "really.png").rename(tmp_path / "really.jpg")
    assert np.array_equal(read(tmp_path / "really.jpg").array[0], GREY)


def test_alpha_lies_on_white(tmp_path: Path) -> None:
    alpha = np.full((20, 31, 1), 255, np.uint8)
    Image.fromarray(np.concatenate([RGB, alpha], axis=2)).save(tmp_path / "opaque.png")
    opaque = read(tmp_path / "opaque.png")
    assert np.array_equal(opaque.array, RGB.transpose(2, 0, 1)) and opaque.warnings == []
    alpha[:10] = 0
    Image.fromarray(np.concatenate([RGB, alpha], axis=2)).save(tmp_path / "half.png")
    half = read(tmp_path / "half.png")
    assert (half.array[:, :10] == 255).all() and "white" in half.warnings[0]
    assert np.array_equal(half.array[:, 10:], RGB[10:].transpose(2, 0, 1))
    Image.fromarray(np.stack([GREY, alpha[..., 0]], axis=2), "LA").save(tmp_path / "la.png")
    assert read(tmp_path / "la.png").array.shape == (1, 20, 31)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
@pytest.mark.parametrize(("tag", "turns"), [(3, 2), (6, -1), (8, 1)])
def test_orientation_tag(tmp_path: Path, suffix: str, tag: int, turns: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = tag
    smooth = np.add.outer(np.arange(20) * 5, np.arange(32) * 3).astype(np.uint8)
    path = tmp_path / f"a{suffix}"
    Image.fromarray(smooth).save(path, exif=exif)
    case = read(path)
    assert np.abs(case.array[0] - np.rot90(smooth, turns)).max() <= (3 if suffix == ".jpg" else 0)
    assert len(case.warnings) == 1 and "upright" in case.warnings[0]


@pytest.mark.parametrize("values", [GREY, GREY.astype(np.uint16) * 257, GREY > 127])
def test_white_is_zero(tmp_path: Path, values: np.ndarray) -> None:
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="miniswhite")
    top = 65535 if values.dtype == np.uint16 else 255
    expected = top - values.astype(np.int64) * (255 if values.dtype == bool else 1)
    assert np.array_equal(read(tmp_path / "a.tif").array[0], expected)


def test_bad_pictures(tmp_path: Path) -> None:
    paths = {
        n: tmp_path / n
        for n in ("pages.tif", "frames.png", "dot.png", "cut.png", "cut.jpg", "text.png", "nan.tif")
    }
    pages = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    pages[0].save(paths["pages.tif"], save_all=True, append_images=pages[1:])
    pages[0].save(paths["frames.png"], save_all=True, append_images=pages[1:])
    Image.fromarray(GREY[:1, :1]).save(paths["dot.png"])
    for name in ("cut.png", "cut.jpg"):
        Image.fromarray(RGB).save(paths[name])
        paths[name].write_bytes(paths[name].read_bytes()[:-300])
    paths["text.png"].write_text("hello")
    Image.fromarray(np.full((20, 20), np.nan, np.float32)).save(paths["nan.tif"])
    words = (
        "save one page a file",
        "pages",
        "too small (1 x 1",
        "truncated",
        "truncated",
        "not a picture",
        "finite",
    )
    for path, word in zip(paths.values(), words, strict=True):
        refused(path, word)


def test_decompression_bomb(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.bmp")
    for edge in (14_000, 30_000):
        content = bytearray((tmp_path / "a.bmp").read_bytes())
        content[18:26] = np.array([edge, edge], "<i4").tobytes()
        (tmp_path / "a.bmp").write_bytes(content)
        refused(tmp_path / "a.bmp", "pixels")
