"""Contours drawn again give the very mask, where it was in the patient; the object refers to its images."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from skimage.draw import polygon2mask
from skimage.measure import points_in_poly

from bundle.cases.case import Case
from bundle.results import DicomResults
from bundle.results.files.contours import keyholed, outlines
from tests.support import dicom_series as made

LABELS = {1: "aorta", 3: "left kidney", 5: "liver"}


def case_of(kind: str, folder: Path) -> Case:
    if kind == "enhanced":
        return made.enhanced_case(made.write_enhanced_ct(folder / "enhanced.dcm"))
    orientation = made.OBLIQUE if kind == "oblique" else made.AXIAL
    return made.volume_case(made.write_ct(folder / "series", orientation, feet_first=kind == "feet first"))


def drawn(contours: pydicom.Dataset, case: Case, names: dict[int, str]) -> NDArray[np.uint8]:
    """The mask of a structure set, filled slice by slice: by a reader that knows nothing of how it was made."""
    assert case.affine is not None
    mask = np.zeros(case.array.shape[1:], np.uint8)
    to_index = np.linalg.inv(case.affine)
    values = {name: value for value, name in names.items()}
    named = {int(roi.ROINumber): str(roi.ROIName) for roi in contours.StructureSetROISequence}
    for roi in contours.ROIContourSequence:
        value = values[named[int(roi.ReferencedROINumber)]]
        for contour in roi.ContourSequence:
            points = np.array(contour.ContourData, float).reshape(-1, 3) * [-1.0, -1.0, 1.0]
            assert len(points) == int(contour.NumberOfContourPoints)
            index = points @ to_index[:3, :3].T + to_index[:3, 3]
            place = round(float(index[0, 2]))
            assert np.abs(index[:, 2] - place).max() < 1e-3  # planar, on a slice
            mask[..., place][polygon2mask(mask.shape[:2], index[:, :2])] = value
    return mask


@pytest.mark.parametrize("kind", ["axial", "oblique", "feet first", "enhanced"])
def test_contours_filled_again_are_the_mask(tmp_path: Path, kind: str) -> None:
    prediction = made.predicted(case_of(kind, tmp_path), LABELS)
    supplement = DicomResults(rtstruct=True)(prediction, tmp_path)
    assert supplement is not None and list(supplement.warnings) == []
    contours = pydicom.dcmread(tmp_path / "rtstruct.dcm")
    assert np.array_equal(drawn(contours, prediction.case, LABELS), prediction.mask)
    # the same in every pair of numbers as the segmentation beside it: patient, study, frame of reference
    segmentation = pydicom.dcmread(tmp_path / "seg.dcm", stop_before_pixels=True)
    for keyword in ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert contours[keyword].value == segmentation[keyword].value
    assert contours.SeriesInstanceUID != segmentation.SeriesInstanceUID


def test_every_contour_names_the_image_it_lies_on(tmp_path: Path) -> None:
    case = case_of("axial", tmp_path)
    DicomResults(rtstruct=True)(made.predicted(case, LABELS), tmp_path)
    contours = pydicom.dcmread(tmp_path / "rtstruct.dcm")
    heights = {
        header.SOPInstanceUID: float(header.ImagePositionPatient[2])
        for header in (pydicom.dcmread(path) for path in sorted((tmp_path / "series").iterdir()))
    }
    seen = 0
    for roi in contours.ROIContourSequence:
        for contour in roi.ContourSequence:
            (image,) = contour.ContourImageSequence
            assert heights[image.ReferencedSOPInstanceUID] == pytest.approx(float(contour.ContourData[2]))
            seen += 1
    assert seen >= len(LABELS)
    frame = contours.ReferencedFrameOfReferenceSequence[0]
    series = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    assert {item.ReferencedSOPInstanceUID for item in series.ContourImageSequence} == set(heights)


def test_the_same_series_and_mask_give_the_same_object(tmp_path: Path) -> None:
    prediction = made.predicted(case_of("axial", tmp_path), LABELS)
    uids = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        DicomResults(rtstruct=True)(prediction, tmp_path / name)
        uids.append(pydicom.dcmread(tmp_path / name / "rtstruct.dcm").SOPInstanceUID)
    assert uids[0] == uids[1]


def test_a_film_gets_a_sentence_and_its_other_objects(tmp_path: Path) -> None:
    case = made.film_case(made.write_film(tmp_path / "film.dcm"))
    supplement = DicomResults(rtstruct=True)(made.predicted(case, {10: "COVID-19 infection"}), tmp_path)
    assert supplement is not None and "no RT structure set was written" in " ".join(supplement.warnings)
    assert (tmp_path / "seg.dcm").is_file() and not (tmp_path / "rtstruct.dcm").exists()


def signed_area(ring: NDArray[np.float64]) -> float:
    """Of a closed ring, in square pixels, by the shoelace formula; its sign says which way the ring turns."""
    row, column = ring[:, 0], ring[:, 1]
    return float(np.sum(row[:-1] * column[1:] - row[1:] * column[:-1])) / 2.0


@pytest.mark.parametrize("seed", range(20))
def test_a_pixel_is_inside_if_its_centre_is_within_the_outline_and_no_hole(seed: int) -> None:
    random = np.random.default_rng(seed)
    inside = random.random((18, 23)) < random.uniform(0.2, 0.9)
    grid = np.argwhere(np.ones_like(inside)).astype(float)
    found = np.zeros(inside.size, int)
    keyholes = np.zeros(inside.size, int)
    for outline, holes in outlines(inside):
        assert all(signed_area(hole) * signed_area(outline) < 0 for hole in holes)
        found += points_in_poly(grid, outline)
        for hole in holes:
            found -= points_in_poly(grid, hole)
        keyholes += points_in_poly(grid, keyholed(outline, holes))
    assert np.array_equal(found.reshape(inside.shape), inside.astype(int))
    assert np.array_equal(keyholes.reshape(inside.shape), inside.astype(int))


@pytest.mark.skipif(
    shutil.which("dciodvfy") is None, reason="dciodvfy (Debian package dicom3tools) is missing"
)
@pytest.mark.parametrize("kind", ["axial", "enhanced"])
def test_dciodvfy_finds_no_error(tmp_path: Path, kind: str) -> None:
    DicomResults(rtstruct=True)(made.predicted(case_of(kind, tmp_path), LABELS), tmp_path)
    command = ["dciodvfy", str(tmp_path / "rtstruct.dcm")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    output = done.stdout + done.stderr
    assert "RTStructureSet" in output and not [
        line for line in output.splitlines() if line.startswith("Error")
    ]
