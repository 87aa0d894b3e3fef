"""The DICOM segmentation is the mask, voxel for voxel where the source has it, and says what its segments are."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from bundle.cases.case import Case, CaseReference
from bundle.cases.dicom import DicomSource
from bundle.cases.structures import shipped_structures
from bundle.results import DicomResults, Prediction
from bundle.results.dicom.codes import PRIVATE_SCHEME, display_colour, structure_codes
from tests.support import dicom_series as made

REAL = Path(__file__).resolve().parents[4] / "shared" / "data" / "dicom"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the shared data sets are not on this machine")
LABELS = {1: "aorta", 3: "left kidney", 5: "liver", 9: "spleen"}
FILM_LABELS = {10: "COVID-19 infection", 11: "lung"}
TYPES = ("BINARY", "LABELMAP")


def axial(folder: Path) -> Case:
    return made.volume_case(made.write_ct(folder))


def oblique(folder: Path) -> Case:
    return made.volume_case(made.write_ct(folder, made.OBLIQUE))


def feet_first(folder: Path) -> Case:
    return made.volume_case(made.write_ct(folder, feet_first=True))


def one_slice(folder: Path) -> Case:
    return made.volume_case(made.write_ct(folder)[4:5])


def enhanced(folder: Path) -> Case:
    folder.mkdir(parents=True, exist_ok=True)
    return made.enhanced_case(made.write_enhanced_ct(folder / "enhanced"))


def film(folder: Path, **changes: Any) -> Case:
    folder.mkdir(parents=True, exist_ok=True)
    return made.film_case(made.write_film(folder / "film", **changes))


VOLUMES = [axial, oblique, feet_first, enhanced, one_slice]


def written(prediction: Prediction, folder: Path, **options: Any) -> dict[str, Any]:
    """What the report says of the objects in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    supplement = DicomResults(**options)(prediction, folder)
    assert supplement is not None and list(supplement.warnings) == []
    return dict(supplement.entries["dicom"])


def numbers_of(prediction: Prediction, segments: dict[str, int]) -> NDArray[np.uint8]:
    """The mask with segment numbers for values."""
    table = np.zeros(256, np.uint8)
    for value, name in prediction.labels.items():
        table[value] = segments.get(name, 0)
    return table[prediction.mask]


def voxels_by_geometry(path: Path, case: Case) -> NDArray[np.uint8]:
    """The segments on the case's grid, each pixel put where the frame's own geometry says, PS3.3 C.7.6.2.1.1."""
    seg = pydicom.dcmread(path)
    shared = seg.SharedFunctionalGroupsSequence[0]
    orientation = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    between_rows, between_columns = (float(v) for v in shared.PixelMeasuresSequence[0].PixelSpacing)
    assert case.affine is not None
    to_index = np.linalg.inv(case.affine)
    grid = np.zeros(case.array.shape[1:], np.uint8)
    frames = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    for frame, group in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        rows, columns = np.nonzero(frame)
        values = frame[rows, columns]
        if seg.SegmentationType == "BINARY":
            where = group if "SegmentIdentificationSequence" in group else shared
            values = values * where.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        start = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        points = start + np.outer(columns * between_columns, orientation[:3])
        points += np.outer(rows * between_rows, orientation[3:])
        points *= [-1, -1, 1]
        index = points @ to_index[:3, :3].T + to_index[:3, 3]
        assert np.abs(index - index.round()).max() < 1e-3
        grid[tuple(index.round().astype(int).T)] = values
    return grid


def voxels_by_volume(path: Path, case: Case) -> NDArray[np.uint8]:
    """The same by highdicom's volume and its affine."""
    volume = hd.seg.segread(path).get_volume(combine_segments=True)
    assert case.affine is not None
    indices = np.argwhere(volume.array)
    points = indices @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    to_index = np.linalg.inv(case.affine)
    index = (points * [-1, -1, 1]) @ to_index[:3, :3].T + to_index[:3, 3]
    grid = np.zeros(case.array.shape[1:], np.uint8)
    grid[tuple(index.round().astype(int).T)] = volume.array[tuple(indices.T)]
    return grid


def voxels_by_reference(path: Path, case: Case) -> NDArray[np.uint8]:
    """The same by the images that the frames refer to, geometry aside."""
    seg = hd.seg.segread(path)
    source: DicomSource = case.header
    uids = [str(header.SOPInstanceUID) for header in source.datasets()]
    options = {"combine_segments": True, "assert_missing_frames_are_empty": True}
    if source.frames:
        frames = seg.get_pixels_by_source_frame(uids[0], list(source.frames), **options)
    else:
        frames = seg.get_pixels_by_source_instance(uids, **options)
    return np.asarray(frames.transpose(2, 1, 0) if case.is_volume else frames[0])


# --- voxels ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seg_type", TYPES)
@pytest.mark.parametrize("make", VOLUMES)
def test_three_readers_give_the_mask_back(tmp_path: Path, make: Callable[..., Case], seg_type: str) -> None:
    case = make(tmp_path / "series")
    prediction = made.predicted(case, LABELS)
    entry = written(prediction, tmp_path / "out", seg_type=seg_type)["seg"]
    expected = numbers_of(prediction, entry["segments"])
    path = tmp_path / "out" / "seg.dcm"
    assert entry["segments"] == {"aorta": 1, "left kidney": 2, "liver": 3, "spleen": 4}
    assert pydicom.dcmread(path).SegmentationType == seg_type == entry["type"]
    for read in (voxels_by_geometry, voxels_by_volume, voxels_by_reference):
        assert (read(path, case) == expected).all(), read.__name__


@pytest.mark.parametrize("seg_type", TYPES)
@pytest.mark.parametrize("spacing", [{}, {"PixelSpacing": [0.2, 0.2]}, {"ImagerPixelSpacing": [0, 0]}])
def test_a_film_gives_its_mask_back(tmp_path: Path, seg_type: str, spacing: dict[str, Any]) -> None:
    case = film(tmp_path / "series", **spacing)
    prediction = made.predicted(case, FILM_LABELS)
    entry = written(prediction, tmp_path / "out", seg_type=seg_type)["seg"]
    path = tmp_path / "out" / "seg.dcm"
    expected = numbers_of(prediction, entry["segments"])
    assert (voxels_by_reference(path, case) == expected).all()
    seg = hd.seg.segread(path)
    assert "FrameOfReferenceUID" not in seg
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert [float(v) for v in measures.PixelSpacing] == spacing.get("PixelSpacing", [1.0, 1.0])


def test_probabilities_come_back(tmp_path: Path) -> None:
    for make in (axial, enhanced):
        case = make(tmp_path / make.__name__)
        prediction = made.predicted(case, LABELS)
        prediction.probability[0] = 0.0
        out = tmp_path / "out" / make.__name__
        written(prediction, out, probability="fractional")
        seg = hd.seg.segread(out / "probability.dcm")
        assert [item.SegmentLabel for item in seg.SegmentSequence] == ["left kidney", "liver", "spleen"]
        frames = frames_of_channels(seg, case)
        assert np.abs(frames - prediction.probability[1:]).max() <= 0.5 / 255 + 1e-6

        written(prediction, out, probability="parametric_map")
        parametric = hd.imread(out / "probability.dcm")
        frames = frames_of_maps(parametric, case, len(LABELS))
        assert (frames == prediction.probability).all()
        labels = [group.RealWorldValueMappingSequence[0] for group in groups_of(parametric)]
        assert {item.LUTLabel for item in labels} == set(LABELS.values())
        assert labels[0].QuantityDefinitionSequence[0].ConceptCodeSequence[0].CodeMeaning == "Probability"


def groups_of(image: Any) -> list[Any]:
    return list(image.PerFrameFunctionalGroupsSequence)


def place_of(group: Any, case: Case) -> int:
    """Which slice a frame lies on."""
    assert case.affine is not None
    point = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float) * [-1, -1, 1]
    return int((np.linalg.inv(case.affine) @ [*point, 1.0])[2].round())


def frames_of_channels(seg: Any, case: Case) -> NDArray[np.float32]:
    grid = np.zeros((len(seg.SegmentSequence), *case.array.shape[1:]), np.float32)
    for frame, group in zip(seg.pixel_array, groups_of(seg), strict=True):
        number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        grid[number - 1, :, :, place_of(group, case)] = frame.T / seg.MaximumFractionalValue
    return grid


def frames_of_maps(image: Any, case: Case, channels: int) -> NDArray[np.float32]:
    grid = np.full((channels, *case.array.shape[1:]), np.nan, np.float32)
    names = list(LABELS.values())
    for frame, group in zip(image.pixel_array, groups_of(image), strict=True):
        channel = names.index(group.RealWorldValueMappingSequence[0].LUTLabel)
        grid[channel, :, :, place_of(group, case)] = frame.T
    return grid


# --- what is said of them --------------------------------------------------------------------------------


def test_every_structure_of_the_bundle_has_a_public_code() -> None:
    codes = {one.name: structure_codes(one.name) for one in shipped_structures()}
    assert all(code.type.scheme_designator == "SCT" for code in codes.values())
    left, right = codes["left kidney"], codes["right kidney"]
    assert left.type == right.type == structure_codes("Left_Kidney").type
    assert left.laterality is not None and right.laterality is not None
    assert (left.laterality.meaning, right.laterality.meaning) == ("Left", "Right")
    assert codes["liver"].type.value == "10200004" and codes["liver"].laterality is None
    infection = codes["COVID-19 infection"]
    assert infection.category.meaning == "Morphologically Abnormal Structure"
    assert infection.region is not None and infection.region.meaning == "Lung"


@pytest.mark.parametrize("name", ["left adrenal gland", "\u9634\u5f71", "x" * 300, "back\\slash\n"])
def test_a_name_without_a_code_gets_a_private_one(tmp_path: Path, name: str) -> None:
    codes = structure_codes(name)
    assert codes.type.scheme_designator == PRIVATE_SCHEME
    assert len(codes.type.value) <= 16 and 0 < len(codes.type.meaning) <= 64
    assert codes.type == structure_codes(name).type != structure_codes("duodenum").type
    case = axial(tmp_path / "series")
    prediction = made.predicted(case, {1: name})
    written(prediction, tmp_path / "out")
    item = pydicom.dcmread(tmp_path / "out" / "seg.dcm").SegmentSequence[0]
    assert item.SegmentLabel == codes.type.meaning
    assert item.SegmentLabel[:30] == name.replace("\\", " ").strip()[:30]


def test_colours_are_those_of_the_preview() -> None:
    for name in ("aorta", "left kidney", "COVID-19 infection", "something else"):
        colour = hd.color.CIELabColor.from_dicom_value(display_colour(name).value).to_rgb(clip=True)
        np.testing.assert_allclose(np.array(colour) / 255, shipped_structures().rgb(name), atol=2 / 255)


@pytest.mark.parametrize("seg_type", TYPES)
def test_segments_say_what_they_are(tmp_path: Path, seg_type: str) -> None:
    case = axial(tmp_path / "series")
    # asked for but not found, and out of order
    prediction = made.predicted(case, {5: "liver", 3: "left kidney", 1: "aorta"})
    prediction.mask[prediction.mask == 1] = 0
    weights = tmp_path / "model.pt"
    weights.write_bytes(b"weights")
    sha256 = hashlib.sha256(b"weights").hexdigest()
    written(prediction, tmp_path / "out", seg_type=seg_type, weights=weights)
    seg = hd.seg.segread(tmp_path / "out" / "seg.dcm")
    items = [item for item in seg.SegmentSequence if item.SegmentNumber > 0]
    assert [(item.SegmentNumber, item.SegmentLabel) for item in items] == [(1, "liver"), (2, "left kidney")]
    for item in items:
        assert item.SegmentAlgorithmType == "AUTOMATIC"
        algorithm = item.SegmentationAlgorithmIdentificationSequence[0]
        assert algorithm.AlgorithmName == "Text-prior diffusion segmentation"
        assert f"weights_sha256={sha256}" in algorithm.AlgorithmParameters
        assert "steps=2" in algorithm.AlgorithmParameters
        assert item.TrackingID == item.SegmentLabel and item.TrackingUID.startswith("2.25.")
        assert len(item.RecommendedDisplayCIELabValue) == 3
    assert items[0].TrackingUID != items[1].TrackingUID
    kind = items[1].SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodeValue, kind.CodingSchemeDesignator) == ("64033007", "SCT")
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    assert seg.DeviceSerialNumber == sha256


@pytest.mark.parametrize("make", [axial, enhanced, film])
def test_it_refers_to_its_source_and_belongs_to_its_patient(
    tmp_path: Path, make: Callable[..., Case]
) -> None:
    case = make(tmp_path / "series")
    prediction = made.predicted(case, LABELS)
    before = datetime.now().replace(microsecond=0)
    written(prediction, tmp_path / "out")
    seg = pydicom.dcmread(tmp_path / "out" / "seg.dcm")
    uids = {header.SOPInstanceUID for header in case.header.datasets()}
    referenced = seg.ReferencedSeriesSequence[0]
    assert referenced.SeriesInstanceUID == made.SERIES
    assert {item.ReferencedSOPInstanceUID for item in referenced.ReferencedInstanceSequence} == uids
    for group in seg.PerFrameFunctionalGroupsSequence:
        sources = group.DerivationImageSequence[0].SourceImageSequence
        assert {item.ReferencedSOPInstanceUID for item in sources} <= uids
    if case.is_volume:
        assert seg.FrameOfReferenceUID == made.FRAME
    assert (seg.StudyInstanceUID, seg.SeriesInstanceUID != made.SERIES) == (made.STUDY, True)
    assert (str(seg.PatientName), seg.PatientID) == ("M\u00fcller^Jos\u00e9", "P-4711")
    assert (seg.PatientBirthDate, seg.PatientSex, seg.AccessionNumber) == ("19500203", "F", "A-1")
    assert (seg.StudyDate, seg.StudyTime) == ("20240506", "070809")
    for kind in ("Content", "Series", "InstanceCreation"):
        when = datetime.strptime(seg[f"{kind}Date"].value + seg[f"{kind}Time"].value, "%Y%m%d%H%M%S")
        assert before <= when <= datetime.now()


# --- again -----------------------------------------------------------------------------------------------


def without_times(path: Path) -> Any:
    """An object without when it was made, which is all that may differ."""
    dataset = pydicom.dcmread(path)
    for kind in ("Content", "Series", "InstanceCreation"):
        del dataset[f"{kind}Date"], dataset[f"{kind}Time"]
    for item in dataset.ContributingEquipmentSequence:
        item.pop("ContributionDateTime", None)
    for item in dataset.get("ContentSequence", ()):
        item.pop("ObservationDateTime", None)
    return dataset


def test_a_second_run_makes_no_second_object(tmp_path: Path) -> None:
    case = axial(tmp_path / "series")
    options: dict[str, Any] = {"probability": "fractional"}
    first, second = (written(made.predicted(case, LABELS), tmp_path / name, **options) for name in ("a", "b"))
    assert first == second
    for name in ("seg.dcm", "sr.dcm", "probability.dcm"):
        ours, theirs = (without_times(tmp_path / run / name) for run in ("a", "b"))
        assert ours == theirs
    uids = [entry[key] for entry in first.values() for key in ("sop_instance_uid", "series_instance_uid")]
    assert len(set(uids)) == 6
    assert all(uid.startswith("2.25.") and pydicom.uid.UID(uid).is_valid for uid in uids)


def test_other_content_is_another_object(tmp_path: Path) -> None:
    case = axial(tmp_path / "series")
    prediction = made.predicted(case, LABELS)
    weights = tmp_path / "model.pt"
    weights.write_bytes(b"weights")
    uids = [written(prediction, tmp_path / "a")["seg"]["sop_instance_uid"]]
    uids += [written(prediction, tmp_path / "a", weights=weights)["seg"]["sop_instance_uid"]]
    uids += [written(prediction, tmp_path / "a", seg_type="LABELMAP")["seg"]["sop_instance_uid"]]
    prediction.mask[0, 0, 0] = 1
    uids += [written(prediction, tmp_path / "a")["seg"]["sop_instance_uid"]]
    assert len(set(uids)) == 4


# --- real series -----------------------------------------------------------------------------------------


def hounsfield(header: Any) -> NDArray[np.float64]:
    values = header.pixel_array * float(header.get("RescaleSlope", 1))
    return np.asarray(values + float(header.get("RescaleIntercept", 0)))


def real_case(folder: Path) -> Case:
    """A real series by position, its empty UIDs filled in from the file's meta information."""
    headers = {path: pydicom.dcmread(path) for path in sorted(folder.iterdir())}
    files = sorted(headers, key=lambda path: float(headers[path].ImagePositionPatient[2]))
    repaired = {
        path: {"SOPInstanceUID": str(headers[path].file_meta.MediaStorageSOPInstanceUID)}
        for path in files
        if not headers[path].SOPInstanceUID
    }
    source = made.source_of(files, repaired=repaired)
    data = [headers[path] for path in files]
    array = np.stack([hounsfield(header) for header in data])
    return Case(
        CaseReference("case_1", folder),
        array.transpose(2, 1, 0)[None].astype(np.float32),
        made.affine_of(data),
        "CT",
        "file",
        source,
    )


def given(case: Case, mask: NDArray[Any], labels: dict[int, str]) -> Prediction:
    shape = case.array.shape[1:]
    probability = np.stack([(mask == value).astype(np.float32) for value in labels])
    return Prediction(case, mask.astype(np.uint8), probability, np.zeros(shape, np.float32), labels)


def check_real(case: Case, prediction: Prediction, folder: Path, seg_type: str) -> None:
    entry = written(prediction, folder, seg_type=seg_type)["seg"]
    expected = numbers_of(prediction, entry["segments"])
    assert expected.any()
    for read in (voxels_by_geometry, voxels_by_volume, voxels_by_reference):
        assert (read(folder / "seg.dcm", case) == expected).all(), read.__name__


@needs_real
@pytest.mark.parametrize("seg_type", TYPES)
def test_a_real_segmentation_written_again_is_the_same(tmp_path: Path, seg_type: str) -> None:
    case = real_case(REAL / "ct_3_slices")
    other = voxels_by_geometry(REAL / "ct_3_slices.liver_seg.dcm", case)
    prediction = given(case, other * np.uint8(5), {5: "liver"})
    check_real(case, prediction, tmp_path, seg_type)


@needs_real
@pytest.mark.parametrize("seg_type", TYPES)
def test_a_real_series_with_empty_uids(tmp_path: Path, seg_type: str) -> None:
    case = real_case(REAL / "ct_jpeg2000_20_slices")
    truth = nib.load(REAL / "ct_jpeg2000_20_slices.totalsegmentator.nii.gz")
    assert case.affine is not None
    # the truth's grid is the series' own, mirrored
    between = np.linalg.inv(truth.affine) @ case.affine
    index = np.indices(case.array.shape[1:]).reshape(3, -1)
    where = (between[:3, :3] @ index + between[:3, 3:]).round().astype(int)
    values = np.asarray(truth.dataobj)[tuple(where)].reshape(case.array.shape[1:])
    found = [int(value) for value in np.unique(values) if value][:6]
    names = dict(enumerate(["liver", "spleen", "aorta", "stomach", "pancreas", "gallbladder"], start=1))
    mask = np.zeros(values.shape, np.uint8)
    for number, value in enumerate(found, start=1):
        mask[values == value] = number
    prediction = given(case, mask, {number: names[number] for number in range(1, len(found) + 1)})
    check_real(case, prediction, tmp_path, seg_type)


# --- another program's judgement -------------------------------------------------------------------------


def errors_of(path: Path) -> list[str]:
    done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    return [line for line in lines if line.startswith("Error")]


@pytest.mark.skipif(
    shutil.which("dciodvfy") is None, reason="dciodvfy (Debian package dicom3tools) is missing"
)
@pytest.mark.parametrize("make", [*VOLUMES, film])
def test_dciodvfy_finds_no_error(tmp_path: Path, make: Callable[..., Case]) -> None:
    case = make(tmp_path / "series")
    labels = FILM_LABELS if make is film else {**LABELS, 11: "something else"}
    for probability in ("fractional",) if make is film else ("fractional", "parametric_map"):
        written(made.predicted(case, labels), tmp_path / "out", probability=probability)
        for name in ("seg.dcm", "sr.dcm", "probability.dcm"):
            assert errors_of(tmp_path / "out" / name) == [], name
