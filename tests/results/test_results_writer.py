"""What is written is what was predicted, in the source's geometry."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from bundle.cases import CaseError
from bundle.results import Prediction, write_prediction, writer
from bundle.results.files.images import BYTE_SLOPE, to_bytes
from bundle.results.result_files import DICOM_FILES

Make = Callable[..., Prediction]
GEOMETRY = (
    "pixdim",
    "qform_code",
    "sform_code",
    "quatern_b",
    "quatern_c",
    "quatern_d",
    "qoffset_x",
    "qoffset_y",
    "qoffset_z",
    "srow_x",
    "srow_y",
    "srow_z",
)
TILT = np.deg2rad(17.0)
OBLIQUE = np.array(
    [
        [-0.7, 0.1, 0.0, 91.3],
        [0.0, -0.8 * np.cos(TILT), 2.5 * np.sin(TILT), -13.7],
        [0.0, 0.8 * np.sin(TILT), 2.5 * np.cos(TILT), 401.9],
        [0.0, 0.0, 0.0, 1.0],
    ]
)
RIGID = np.array([[0, 0, 3.1, -5], [-0.9, 0, 0, 7], [0, 1.1, 0, 11], [0, 0, 0, 1.0]])


@pytest.fixture
def no_preview(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than all the rest, and most of these tests look at the rest."""
    monkeypatch.setattr(writer, "write_preview", lambda _prediction, _report, _path: None)


def _source(kind: str, shape: tuple[int, ...]) -> nib.Nifti1Image:
    header = nib.Nifti2Header() if kind == "nifti2" else nib.Nifti1Header()
    if kind == "big-endian":
        header = nib.Nifti1Header(endianness=">")
    header.set_data_shape(shape)
    header.set_data_dtype(np.int16)
    header.set_zooms((0.7, 0.8, 2.5))
    header["descrip"], header["db_name" if kind != "nifti2" else "aux_file"] = b"DOE^JANE", b"DOE^JANE"
    header["scl_slope"], header["scl_inter"], header["cal_max"] = 2.0, -1024.0, 3000.0
    header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"DOE^JANE"))
    if kind in {"both", "qform", "big-endian"}:
        header.set_qform(RIGID, code=1)
    if kind in {"both", "sform", "nifti2", "big-endian"}:
        header.set_sform(OBLIQUE, code=2)
    image_class = nib.Nifti2Image if kind == "nifti2" else nib.Nifti1Image
    return image_class(np.zeros(shape, np.int16), None, header)


@pytest.mark.usefixtures("no_preview")
@pytest.mark.parametrize("kind", ["both", "qform", "sform", "neither", "nifti2", "big-endian"])
def test_geometry_of_the_source_is_kept_bit_for_bit(tmp_path: Path, make_prediction: Make, kind: str) -> None:
    source = _source(kind, (24, 20, 10))
    affine = source.header.get_best_affine()
    prediction = make_prediction(affine=affine, header=source.header)
    before = source.header.binaryblock

    write_prediction(prediction, tmp_path)

    assert source.header.binaryblock == before
    for name in ("mask", "probability", "uncertainty"):
        written = nib.load(tmp_path / "case_1" / f"{name}.nii.gz")
        assert written.shape == (24, 20, 10)
        assert written.affine.tobytes() == affine.tobytes()
        assert written.get_data_dtype() == np.uint8
        for field in GEOMETRY:
            assert written.header[field].tobytes() == source.header[field].tobytes(), field
        assert written.header.get_xyzt_units()[0] == "mm"
    mask = nib.load(tmp_path / "case_1" / "mask.nii.gz")
    assert (np.asarray(mask.dataobj) == prediction.mask).all()


@pytest.mark.usefixtures("no_preview")
def test_texts_of_the_source_are_left_out(tmp_path: Path, make_prediction: Make) -> None:
    source = _source("both", (24, 20, 10))
    write_prediction(make_prediction(affine=OBLIQUE, header=source.header), tmp_path)
    for path in (tmp_path / "case_1").glob("*.nii.gz"):
        assert b"DOE" not in gzip.decompress(path.read_bytes())
    path = tmp_path / "case_1" / "mask.nii.gz"
    assert struct.unpack_from("<2f", gzip.decompress(path.read_bytes()), 112) == (1.0, 0.0)
    header = nib.load(path).header
    assert (float(header["cal_max"]), len(header.extensions)) == (0.0, 0)


@pytest.mark.usefixtures("no_preview")
def test_a_two_file_source_and_trailing_axes_of_one(tmp_path: Path, make_prediction: Make) -> None:
    header = nib.nifti1.Nifti1PairHeader()
    header.set_data_shape((24, 20, 10, 1))
    header.set_sform(OBLIQUE, code=1)
    write_prediction(make_prediction(affine=OBLIQUE, header=header), tmp_path)
    mask = nib.load(tmp_path / "case_1" / "mask.nii.gz")
    assert mask.shape == (24, 20, 10, 1)
    assert mask.header["srow_y"].tobytes() == header["srow_y"].tobytes()


@pytest.mark.usefixtures("no_preview")
def test_without_a_header_the_affine_is_written(tmp_path: Path, make_prediction: Make) -> None:
    write_prediction(make_prediction(affine=OBLIQUE), tmp_path)
    mask = nib.load(tmp_path / "case_1" / "mask.nii.gz")
    np.testing.assert_allclose(mask.affine, OBLIQUE, rtol=1e-6)
    np.testing.assert_allclose(mask.header.get_zooms(), np.linalg.norm(OBLIQUE[:3, :3], axis=0), rtol=1e-6)


@pytest.mark.usefixtures("no_preview")
@pytest.mark.filterwarnings("ignore:builtin type:DeprecationWarning")
def test_another_reader_agrees(tmp_path: Path, make_prediction: Make) -> None:
    itk = pytest.importorskip("itk")
    prediction = make_prediction()
    write_prediction(prediction, tmp_path)
    mask = itk.imread(str(tmp_path / "case_1" / "mask.nii.gz"))
    assert (itk.array_from_image(mask).transpose(2, 1, 0) == prediction.mask).all()
    np.testing.assert_allclose(list(mask.GetSpacing()), (1.5, 1.5, 3.0))
    probability = itk.array_from_image(itk.imread(str(tmp_path / "case_1" / "probability.nii.gz"), itk.F))
    assert abs(probability.transpose(2, 1, 0) - prediction.probability[0]).max() < 0.002


@pytest.mark.usefixtures("no_preview")
def test_probability_scales_to_the_unit_interval(tmp_path: Path, make_prediction: Make) -> None:
    prediction = make_prediction(labels={2: "spleen", 1: "liver"})
    prediction.probability[0, 0, 0, 0] = 1.0
    prediction.probability[1, 0, 0, 0] = 0.0
    result = write_prediction(prediction, tmp_path)
    scaled = nib.load(tmp_path / "case_1" / "probability.nii.gz").get_fdata(dtype=np.float64)
    assert result["report"]["probability_channels"] == ["spleen", "liver"]
    assert scaled.shape == (24, 20, 10, 2)
    assert scaled.min() == 0.0 and 1 - 1e-6 < scaled.max() <= 1.0
    assert abs(np.moveaxis(scaled, -1, 0) - prediction.probability).max() <= 0.5 / 255 + 1e-6
    assert 255 * BYTE_SLOPE <= 1.0


def test_values_that_are_not_finite_are_refused(tmp_path: Path, make_prediction: Make) -> None:
    prediction = make_prediction()
    prediction.uncertainty[1, 1, 1] = np.nan
    with pytest.raises(ValueError, match="finite"):
        write_prediction(prediction, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert to_bytes(np.array([-0.1, 0.5, 1.1])).tolist() == [0, 128, 255]


@pytest.mark.usefixtures("no_preview")
def test_a_picture_with_two_labels(tmp_path: Path, make_prediction: Make) -> None:
    prediction = make_prediction(shape=(40, 30), labels={1: "lung", 7: "infection"})
    result = write_prediction(prediction, tmp_path)
    folder = tmp_path / "case_1"
    mask = Image.open(folder / "mask.png")
    assert mask.mode == "L" and (np.asarray(mask) == prediction.mask).all()
    probability = np.asarray(Image.open(folder / "probability.png"))
    assert (probability == to_bytes(prediction.probability.sum(axis=0))).all()
    assert (np.asarray(Image.open(folder / "uncertainty.png")) == to_bytes(prediction.uncertainty)).all()
    area = int((prediction.mask == 7).sum())
    assert result["report"]["labels"]["infection"]["area_px"] == area
    assert "clipped sum" in result["report"]["probability_file"]
    assert result["report"]["spacing_mm"] is None


def test_files_are_listed_and_repeat_byte_for_byte(tmp_path: Path, make_prediction: Make) -> None:
    first = write_prediction(make_prediction(), tmp_path / "a", 1.5)
    second = write_prediction(make_prediction(), tmp_path / "b", 1.5)
    maps = ["mask.nii.gz", "preview.png", "probability.nii.gz", "report.json"]
    names = ["index.html", *maps, "thumbnail.jpg", "uncertainty.nii.gz", "viewer.js"]
    assert first["files"] == [f"case_1/{name}" for name in names] == second["files"]
    for name in first["files"]:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    assert json.loads((tmp_path / "a/case_1/report.json").read_text()) == first["report"]


def test_the_thumbnail_is_small(tmp_path: Path, make_prediction: Make) -> None:
    write_prediction(make_prediction(shape=(400, 300)), tmp_path)
    path = tmp_path / "case_1" / "thumbnail.jpg"
    assert max(Image.open(path).size) == 176 and path.stat().st_size < 20_000


@pytest.mark.usefixtures("no_preview")
def test_an_older_folder_is_replaced_as_a_whole(tmp_path: Path, make_prediction: Make) -> None:
    class WriteSegmentation:
        files = DICOM_FILES

        def __call__(self, _prediction: Prediction, folder: Path) -> None:
            for file in self.files:
                (folder / file.name).write_text("x")

    earlier = write_prediction(make_prediction(), tmp_path, writers=[WriteSegmentation()])
    assert {f"case_1/{file.name}" for file in DICOM_FILES} <= set(earlier["files"])
    result = write_prediction(make_prediction(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["case_1"]
    assert not (tmp_path / "case_1" / "seg.dcm").exists()
    assert "case_1/seg.dcm" not in result["files"]


def test_a_folder_that_holds_something_else_is_not_replaced(tmp_path: Path, make_prediction: Make) -> None:
    (tmp_path / "case_1").mkdir()
    (tmp_path / "case_1" / "IM0001.dcm").write_text("the only copy")
    with pytest.raises(CaseError, match="case_1: is there already and is not a result of an earlier run"):
        write_prediction(make_prediction(), tmp_path)
    write_prediction(make_prediction(case_id="case_2"), tmp_path)
    (tmp_path / "case_2" / "notes.txt").write_text("of a reader")
    with pytest.raises(CaseError):
        write_prediction(make_prediction(case_id="case_2"), tmp_path)
    assert (tmp_path / "case_1" / "IM0001.dcm").exists() and (tmp_path / "case_2" / "notes.txt").exists()


@pytest.mark.parametrize("case_id", ["", "..", "a/b", "/etc"])
def test_an_id_that_leaves_the_folder_is_refused(tmp_path: Path, make_prediction: Make, case_id: str) -> None:
    with pytest.raises(ValueError, match="folder name"):
        write_prediction(make_prediction(case_id=case_id), tmp_path / "out")


def test_parts_that_do_not_fit_are_refused(make_prediction: Make) -> None:
    good = make_prediction()
    with pytest.raises(ValueError, match="probability has shape"):
        Prediction(good.case, good.mask, good.probability[0], good.uncertainty, good.labels)
    with pytest.raises(ValueError, match="expected uint8"):
        Prediction(good.case, good.mask.astype(np.int16), good.probability, good.uncertainty, good.labels)
    with pytest.raises(ValueError, match="1-255"):
        make_prediction(labels={0: "background"})
