"""Images and labels are read exactly, and whatever is wrong with a file is said in one sentence."""

from __future__ import annotations

import gzip
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from bundle.cases import Case, CaseError, CaseReference, Modality, read_case, read_label

RNG = np.random.default_rng(7)
HU = RNG.integers(-1000, 1500, (5, 7, 4)).astype(np.int16)
GREY = RNG.integers(0, 256, (20, 31)).astype(np.uint8)
RGB = RNG.integers(0, 256, (20, 31, 3)).astype(np.uint8)
TURN = np.array([[0.0, -0.8, 0.6], [1.0, 0.0, 0.0], [0.0, 0.6, 0.8]])
AFFINE = np.eye(4)
AFFINE[:3, :3] = TURN * [0.7, 0.8, 2.5]
AFFINE[:3, 3] = [12.5, -40.0, 300.25]
DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def read(path: Path, modality: Modality | None = None) -> Case:
    return read_case(CaseReference("c", path, modality=modality))


def nifti(path: Path, array: np.ndarray, affine: np.ndarray | None = AFFINE) -> Path:
    image = nibabel.Nifti1Image(array, None)
    if affine is not None:
        # Only the rows of the affine: nibabel refuses to derive quaternions from a broken one.
        image.header.set_sform(affine, code=2)
    nibabel.save(image, path)
    return path


def refused(call: Callable[[], object], path: Path, *words: str) -> None:
    with pytest.raises(CaseError) as caught:
        call()
    message = str(caught.value)
    assert path.name in message and message.endswith(".") and not message.endswith("..")
    assert len(message.splitlines()) == 1
    for word in words:
        assert word in message


# --- volumes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti_keeps_values_affine_and_header(tmp_path: Path, suffix: str) -> None:
    path = nifti(tmp_path / f"a{suffix}", HU)
    case = read(path)
    assert case.array.dtype == np.float32 and np.array_equal(case.array[0], HU)
    assert case.affine is not None and case.affine.dtype == np.float64
    assert np.array_equal(case.affine, nibabel.load(path).affine)
    assert case.header == nibabel.load(path).header
    assert (case.modality, case.modality_source, case.warnings) == ("CT", "file", [])
    assert case.spacing == pytest.approx((0.7, 0.8, 2.5), abs=1e-6)


def test_nifti_scaling_and_big_endian(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(HU.astype(">i2"), AFFINE, nibabel.Nifti1Header(endianness=">"))
    image.header.set_slope_inter(2.0, -24.0)
    nibabel.save(image, tmp_path / "a.nii")
    raw = nibabel.load(tmp_path / "a.nii")
    assert np.allclose(read(tmp_path / "a.nii").array[0], raw.get_fdata())


def test_nifti_2(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti2Image(HU, AFFINE), tmp_path / "a.nii.gz")
    assert np.array_equal(read(tmp_path / "a.nii.gz").array[0], HU)


@pytest.mark.parametrize("packed", [True, False])
def test_compression_is_told_from_the_content(tmp_path: Path, packed: bool) -> None:
    plain = nifti(tmp_path / "x.nii", HU).read_bytes()
    path = tmp_path / ("a.nii" if packed else "a.nii.gz")
    path.write_bytes(gzip.compress(plain) if packed else plain)
    assert np.array_equal(read(path).array[0], HU)


@pytest.mark.parametrize("shape", [(5, 28), (5, 28, 1), (5, 7, 4, 1), (5, 7, 4, 1, 1)])
def test_shapes_that_stand_for_a_volume(tmp_path: Path, shape: tuple[int, ...]) -> None:
    case = read(nifti(tmp_path / "a.nii.gz", HU.reshape(shape)))
    assert case.array.shape == (1, *(*shape, 1)[:3])
    assert bool(case.warnings) == (len(shape) > 3)


@pytest.mark.parametrize("suffix", [".mha", ".mhd", ".nrrd", ".nhdr"])
def test_itk_world_is_that_of_nifti(tmp_path: Path, suffix: str) -> None:
    itk = pytest.importorskip("itk")
    image = itk.image_from_array(np.ascontiguousarray(HU.transpose(2, 1, 0)))
    flip = np.diag([-1.0, -1.0, 1.0])
    image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(flip @ TURN)))
    image.SetSpacing([0.7, 0.8, 2.5])
    image.SetOrigin([-12.5, 40.0, 300.25])
    itk.imwrite(image, str(tmp_path / f"a{suffix}"), compression=suffix != ".mhd")
    itk.imwrite(image, str(tmp_path / "a.nii.gz"))
    case = read(tmp_path / f"a{suffix}")
    assert case.affine is not None and case.header is None and case.warnings == []
    assert np.array_equal(case.array[0], HU)
    assert np.allclose(case.affine, nibabel.load(tmp_path / "a.nii.gz").affine, atol=1e-4)
    assert np.allclose(case.affine, AFFINE, atol=1e-9)


def test_itk_slice_is_a_volume_of_one(tmp_path: Path) -> None:
    itk = pytest.importorskip("itk")
    itk.imwrite(itk.image_from_array(np.ascontiguousarray(HU[:, :, 0].T)), str(tmp_path / "a.mha"))
    case = read(tmp_path / "a.mha")
    assert np.array_equal(case.array[0], HU[:, :, :1])
    assert case.affine is not None and np.allclose(case.affine, np.diag([-1.0, -1, 1, 1]))


def test_itk_bad_input(tmp_path: Path) -> None:
    itk = pytest.importorskip("itk")
    image = itk.image_from_array(np.ascontiguousarray(HU.transpose(2, 1, 0)))
    for suffix in (".mha", ".nrrd"):
        cut, text = tmp_path / f"cut{suffix}", tmp_path / f"text{suffix}"
        itk.imwrite(image, str(cut), compression=True)
        cut.write_bytes(cut.read_bytes()[:-60])
        refused(lambda path=cut: read(path), cut, "truncated")  # type: ignore[misc]
        text.write_text("hello")
        refused(lambda path=text: read(path), text, "in spite of its name")  # type: ignore[misc]
    colour = itk.image_from_array(RGB, is_vector=True)
    itk.imwrite(colour, str(tmp_path / "colour.nrrd"))
    refused(lambda: read(tmp_path / "colour.nrrd"), tmp_path / "colour.nrrd", "values a voxel")
    series = itk.image_from_array(np.zeros((3, 4, 5, 6), np.float32))
    itk.imwrite(series, str(tmp_path / "series.mha"))
    refused(lambda: read(tmp_path / "series.mha"), tmp_path / "series.mha", "split it into 3-D volumes")


@pytest.mark.parametrize(
    "name", ["/etc/hostname", "../secret.raw", "sub/secret.raw", "..", "LIST", "s%d.raw 1 2 1"]
)
@pytest.mark.parametrize("suffix", [".mhd", ".nhdr"])
def test_a_header_leads_to_its_own_folder_only(tmp_path: Path, suffix: str, name: str) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for secret in (tmp_path / "secret.raw", tmp_path / "in" / "sub" / "secret.raw"):
        secret.write_bytes(bytes(64))
    path = tmp_path / "in" / f"a{suffix}"
    if suffix == ".mhd":
        sizes = "NDims = 3\nDimSize = 4 4 4\nElementType = MET_UCHAR\nElementSpacing = 1 1 1\n"
        path.write_text(f"ObjectType = Image\n{sizes}ElementDataFile = {name}\n")
    else:
        fields = "type: uchar\ndimension: 3\nsizes: 4 4 4\nencoding: raw\n"
        path.write_text(f"NRRD0004\n{fields}data file: {name}\n\n")
    refused(lambda: read(path), path, "data")


def test_a_missing_data_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.mhd"
    path.write_text(
        "ObjectType = Image\nNDims = 2\nDimSize = 4 4\nElementType = MET_UCHAR\nElementDataFile = a.raw\n"
    )
    refused(lambda: read(path), path, "a.raw, which is missing")


def test_volumes_of_doubtful_use_carry_warnings(tmp_path: Path) -> None:
    assert "same value" in read(nifti(tmp_path / "a.nii", np.full((4, 4, 4), -3.0))).warnings[0]
    for name, values in (("b", HU / np.float32(1000)), ("c", HU.astype(np.uint8)), ("d", HU + 1024)):
        assert "Hounsfield" in read(nifti(tmp_path / f"{name}.nii", values)).warnings[0]
    assert "nominal" in read(nifti(tmp_path / "e.nii", HU, affine=None)).warnings[0]


def _bad_volume(name: str, path: Path) -> None:
    good = gzip.compress(nibabel.Nifti1Image(RNG.random((9, 9, 9)), AFFINE).to_bytes())
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 0x10
    holed = HU.astype(np.float32)
    holed[0, 0, :2] = [np.nan, np.inf]
    content: dict[str, Callable[[], object]] = {
        "cut": lambda: path.write_bytes(good[: len(good) // 2]),
        "cut checksum": lambda: path.write_bytes(good[:-6]),
        "flipped": lambda: path.write_bytes(flipped),
        "text": lambda: path.write_text("not an image"),
        "header only": lambda: path.write_bytes(gzip.compress(gzip.decompress(good)[:352])),
        "no bytes": lambda: path.write_bytes(b""),
        "4-D": lambda: nifti(path, np.zeros((4, 4, 4, 3), np.int16)),
        "1-D": lambda: nifti(path, np.zeros(4, np.int16)),
        "complex": lambda: nifti(path, np.zeros((4, 4, 4), np.complex64)),
        "colour": lambda: nifti(path, np.zeros((4, 4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])),
        "all NaN": lambda: nifti(path, np.full((4, 4, 4), np.nan, np.float32)),
        "some NaN": lambda: nifti(path, holed),
        "flat affine": lambda: nifti(path, HU, np.diag([1.0, 1.0, 0.0, 1.0])),
        "folded affine": lambda: nifti(
            path, HU, np.array([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
        ),
        "NaN affine": lambda: nifti(path, HU, np.diag([np.nan, 1.0, 1.0, 1.0])),
        "folder": path.mkdir,
        "loop": lambda: path.symlink_to(path),
        "pipe": lambda: os.mkfifo(path),
        "missing": lambda: None,
    }
    content[name]()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cut", "truncated"),
        ("cut checksum", "truncated"),
        ("flipped", "corrupt"),
        ("text", "not a NIfTI file"),
        ("header only", "truncated"),
        ("no bytes", "is empty"),
        ("4-D", "split it into 3-D volumes"),
        ("1-D", "dimension"),
        ("complex", "complex"),
        ("colour", "colour"),
        ("all NaN", "only values that are not finite"),
        ("some NaN", "2 values that are not finite"),
        ("flat affine", "geometry"),
        ("folded affine", "cannot be inverted"),
        ("NaN affine", "not finite"),
        ("folder", "is a folder"),
        ("loop", "symbolic link"),
        ("pipe", "not a regular file"),
        ("missing", "does not exist"),
    ],
)
def test_bad_volumes(tmp_path: Path, name: str, words: str) -> None:
    path = tmp_path / "bad.nii.gz"
    _bad_volume(name, path)
    refused(lambda: read(path), path, words)


def test_files_of_other_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content, words in (
        ("a.dcm", b"x", "is not DICOM in spite of its name"),
        ("b.png", bytes(128) + b"DICM", "corrupt or truncated DICOM"),
    ):
        (tmp_path / name).write_bytes(content)
        refused(lambda path=tmp_path / name: read(path), tmp_path / name, words, "export it again")  # type: ignore[misc]
    (tmp_path / "a.xyz").write_bytes(b"x")
    refused(lambda: read(tmp_path / "a.xyz"), tmp_path / "a.xyz", "type")
    refused(lambda: read(Path("a\0b.nii")), Path("b.nii"), "valid path")
    refused(lambda: read(tmp_path / "a.xyz" / "b.nii"), tmp_path / "b.nii", "part of its path")
    refused(lambda: read(tmp_path / ("n" * 300 + ".nii")), Path("nnn"), "longer")
    path = nifti(tmp_path / "locked.nii", HU)

    def deny(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr("builtins.open", deny)
    refused(lambda: read(path), path, "may not be read")


def test_an_error_crosses_processes() -> None:
    error = CaseError(Path("a\nb.nii"), "is bad", "mend it")
    assert str(pickle.loads(pickle.dumps(error))) == str(error) == "a b.nii: is bad; mend it."


# --- modality --------------------------------------------------------------------------------------------


def test_modality_must_suit_the_file(tmp_path: Path) -> None:
    volume = nifti(tmp_path / "a.nii", HU)
    picture = tmp_path / "a.png"
    Image.fromarray(GREY).save(picture)
    refused(lambda: read(volume, "X-ray"), volume, "X-ray")
    refused(lambda: read(volume, "H&E"), volume, "H&E")
    refused(lambda: read(picture, "CT"), picture, "CT")
    # a film stored as a volume of one slice lies in the voxel order of the volume, not upright
    one_slice = nifti(tmp_path / "slice.nii", HU[..., :1])
    refused(lambda: read(one_slice, "X-ray"), one_slice, "X-ray")
    reference = CaseReference("c", volume, modality="CT", modality_source="datalist")
    assert read_case(reference).modality_source == "datalist"
    assert read(volume, "CT").modality_source == "option"


def test_channels_follow_the_stated_modality(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "grey.png")
    Image.fromarray(RGB).save(tmp_path / "rgb.png")
    tissue = read(tmp_path / "grey.png", "H&E")
    assert tissue.array.shape == (3, 20, 31) and (tissue.array == GREY).all() and len(tissue.warnings) == 1
    xray = read(tmp_path / "rgb.png", "X-ray")
    assert xray.array.shape == (1, 20, 31) and "luminance" in xray.warnings[0]
    assert np.allclose(xray.array[0], RGB @ [0.299, 0.587, 0.114], atol=1e-3)


# --- labels ----------------------------------------------------------------------------------------------


def label_of(image: Path, label: Path, labels: dict[int, str] | None = None) -> np.ndarray:
    reference = CaseReference("c", image, label=label, labels=labels or {})
    return read_label(reference, read_case(reference))


def test_volume_label(tmp_path: Path) -> None:
    image = nifti(tmp_path / "image.nii.gz", HU)
    labels = (HU % 3).astype(np.uint8)
    label = nifti(tmp_path / "label.nii.gz", labels.astype(np.float64))
    found = label_of(image, label, {1: "liver", 2: "spleen"})
    assert found.dtype == np.uint8 and np.array_equal(found, labels)
    refused(lambda: label_of(image, label, {1: "liver"}), label, "(2)")
    moved = AFFINE.copy()
    moved[2, 3] += 2.5
    for name, array, affine, words in (
        ("moved", labels, moved, "2.50 mm away"),
        ("cropped", labels[:4], AFFINE, "4 x 7 x 4"),
        ("fraction", labels * 0.5, AFFINE, "fractional"),
        ("large", labels * 200.0, AFFINE, "whole numbers from 0 to 255"),
        ("negative", labels * -1.0, AFFINE, "whole numbers from 0 to 255"),
    ):
        path = nifti(tmp_path / f"{name}.nii", array, affine)
        refused(lambda path=path: label_of(image, path), path, words)  # type: ignore[misc]
    close = AFFINE + 1e-5
    close[3] = AFFINE[3]
    assert np.array_equal(label_of(image, nifti(tmp_path / "close.nii", labels, close)), labels)


def test_picture_label(tmp_path: Path) -> None:
    image, label = tmp_path / "image.png", tmp_path / "label.png"
    Image.fromarray(GREY).save(image)
    labels = (GREY % 2).astype(np.uint8)
    for picture in (labels, labels.astype(bool), labels * 255, np.repeat(labels[..., None] * 255, 3, axis=2)):
        Image.fromarray(picture).save(label)
        assert np.array_equal(label_of(image, label, {1: "nucleus"}), labels)
    Image.fromarray(labels * 255).save(label)
    assert np.array_equal(label_of(image, label, {255: "void"}), labels * 255)
    palette = Image.fromarray(GREY % 3)
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    palette.save(label)
    assert np.array_equal(label_of(image, label, {1: "a", 2: "b"}), GREY % 3)
    Image.fromarray(RGB).save(label)
    refused(lambda: label_of(image, label), label, "colour")
    Image.fromarray(labels[:18]).save(label)
    refused(lambda: label_of(image, label), label, "18 x 31")
    Image.fromarray(GREY).save(tmp_path / "label.jpg")
    refused(lambda: label_of(image, tmp_path / "label.jpg"), tmp_path / "label.jpg", "lossy")
    volume = nifti(tmp_path / "v.nii", labels[..., None])
    refused(lambda: label_of(image, volume), volume, "label of a picture")
    refused(lambda: read_label(CaseReference("c", image)), image, "no label")


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared data sets are not on this machine")
@pytest.mark.parametrize("name", ["ct_lung", "xray_covid", "histology_nuclei"])
def test_real_files(name: str) -> None:
    content = json.loads((DATA / name / "datalist.json").read_text())
    labels = {int(value): label for value, label in content["labels"].items() if value != "0"}
    entry = content["validation"][0]
    reference = CaseReference("c", DATA / name / entry["image"], DATA / name / entry["label"], labels=labels)
    case = read_case(reference)
    assert case.modality == content["modality"] and case.warnings == []
    assert read_label(reference, case).max() == 1
