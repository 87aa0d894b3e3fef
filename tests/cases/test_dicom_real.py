"""Real DICOM: voxels and geometry against readers of other origin, and odd series refused in a sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from bundle.cases import CaseError, collect, read_case
from bundle.cases.case import Case
from bundle.cases.dicom import SeriesSelection

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "dicom"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the shared DICOM data are not on this machine")

MR_AS_CT = ["compressed_rle", "compressed_jpeg", "compressed_jpegls", "compressed_j2k"]


def read(name: str, **options: object) -> Case:
    (reference,) = collect(DATA / name, **options).references  # type: ignore[arg-type]
    return read_case(reference)


def by_hand(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """(columns, rows, slices) and the RAS affine, from position and orientation of each file alone."""
    files = [pydicom.dcmread(path) for path in folder.iterdir()]
    row, column = (
        np.array(files[0].ImageOrientationPatient[part], float) for part in (slice(3), slice(3, 6))
    )
    normal = np.cross(row, column)
    files.sort(key=lambda one: float(np.dot(normal, np.array(one.ImagePositionPatient, float))))
    positions = [np.array(one.ImagePositionPatient, float) for one in files]
    affine = np.eye(4)
    affine[:3, 0] = row * float(files[0].PixelSpacing[1])
    affine[:3, 1] = column * float(files[0].PixelSpacing[0])
    affine[:3, 2] = (positions[-1] - positions[0]) / (len(files) - 1)
    affine[:3, 3] = positions[0]
    slices = [
        one.pixel_array.astype(np.float64).T * float(one.get("RescaleSlope", 1))
        + float(one.get("RescaleIntercept", 0))
        for one in files
    ]
    return np.stack(slices, -1), np.diag([-1, -1, 1, 1]) @ affine


@pytest.mark.parametrize("name", ["ct_3_slices", "ct_jpeg2000_20_slices", "odd/gantry_tilt_14_degrees"])
def test_good_series(name: str) -> None:
    case = read(name)
    array, affine = by_hand(DATA / name)
    np.testing.assert_allclose(case.array[0], array, atol=1e-3)
    np.testing.assert_allclose(case.affine, affine, atol=1e-4)
    assert case.modality == "CT"


@pytest.mark.parametrize("name", ["ct_3_slices", "ct_jpeg2000_20_slices"])
def test_itk_reads_the_same(name: str) -> None:
    import itk

    case = read(name)
    names = [str(path) for path in case.header.files]
    image = itk.imread(names, itk.F)
    np.testing.assert_allclose(case.array[0], itk.array_from_image(image).transpose(2, 1, 0), atol=1e-3)
    ours = np.diag([-1, -1, 1, 1]) @ case.affine
    index = [10, 20, len(names) - 1]
    theirs = image.TransformIndexToPhysicalPoint(index)
    np.testing.assert_allclose(ours[:3, :3] @ index + ours[:3, 3], np.array(theirs), atol=1e-3)


def test_the_liver_of_the_series_with_a_segmentation() -> None:
    """An independent object on the same grid says where the liver is: soft tissue, not air and not bone."""
    case = read("ct_3_slices")
    segmentation = pydicom.dcmread(DATA / "ct_3_slices.liver_seg.dcm")
    mask = segmentation.pixel_array
    frames = segmentation.PerFrameFunctionalGroupsSequence
    for frame, values in zip(frames, mask, strict=True):
        position = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        z = np.linalg.inv(np.diag([-1, -1, 1, 1]) @ case.affine) @ (*position, 1)
        liver = case.array[0, :, :, round(float(z[2]))].T[values > 0]
        assert abs(z[2] - round(float(z[2]))) < 0.01
        assert 0 < np.median(liver) < 200


def test_empty_identifiers_are_said() -> None:
    case = read("ct_jpeg2000_20_slices")
    assert any("SeriesInstanceUID" in text for text in case.warnings)
    headers = case.header.datasets()
    assert len({header.SOPInstanceUID for header in headers}) == 20
    assert {header.SeriesInstanceUID for header in headers} == {case.header.series_uid}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing_slice", "missing or unevenly spaced .from 5 to 10 mm"),
        ("all_slices_at_one_position", "all its 4 slices at one position"),
        ("single_slice", "has modality MR"),
        ("enhanced_multiframe_mr", "has modality MR"),
        *((name, "has modality MR") for name in MR_AS_CT),
    ],
)
def test_odd_series_are_refused(name: str, words: str) -> None:
    with pytest.raises(CaseError, match=words) as refused:
        read(f"odd/{name}")
    assert str(DATA / "odd" / name) in str(refused.value)


@pytest.mark.parametrize("name", MR_AS_CT)
def test_compressions_decode_alike(name: str) -> None:
    case = read(f"odd/{name}", modality="CT")
    array, affine = by_hand(DATA / "odd" / "compressed_rle")
    np.testing.assert_allclose(case.array[0], array, atol=1e-3)
    np.testing.assert_allclose(case.affine, affine, atol=1e-4)


def test_the_missing_slice_is_interpolated_on_request() -> None:
    case = read("odd/missing_slice", selection=SeriesSelection(resample_slices=True))
    array, _ = by_hand(DATA / "odd" / "missing_slice")
    assert case.array.shape[-1] == 5 and any("resampled to 5 slices" in text for text in case.warnings)
    np.testing.assert_allclose(case.array[0][..., [0, 1, 2, 4]], array, atol=1e-3)
    np.testing.assert_allclose(case.array[0][..., 3], (array[..., 2] + array[..., 3]) / 2, atol=1e-2)
    assert case.spacing is not None and abs(case.spacing[2] - 5) < 1e-4


def test_single_slice_and_multi_frame_where_their_modality_is_stated() -> None:
    with pytest.raises(CaseError, match="states no thickness"):
        read("odd/single_slice", modality="CT")
    case = read("odd/enhanced_multiframe_mr", modality="CT")
    highdicom = pytest.importorskip("highdicom")
    dataset = pydicom.dcmread(DATA / "odd" / "enhanced_multiframe_mr" / "IM-0001-0170-0001.dcm")
    dataset.FrameOfReferenceUID = case.header.datasets()[0].FrameOfReferenceUID
    volume = highdicom.Image.from_dataset(dataset).get_volume()
    affine = np.diag([-1, -1, 1, 1]) @ volume.affine
    index = np.array([(0, 0, 0, 1), (3, 40, 50, 1), (volume.shape[0] - 1, 200, 100, 1)])
    ours = np.rint(index @ affine.T @ np.linalg.inv(case.affine).T).astype(int)  # type: ignore[arg-type]
    for (a, b, c, _), (x, y, z, _) in zip(index, ours, strict=True):
        assert case.array[0, x, y, z] == pytest.approx(float(volume.array[a, b, c]), abs=1e-3)
