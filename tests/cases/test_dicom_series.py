"""DICOM folders to cases: what belongs together, what is left out, what cases are called, and films."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import JPEGBaseline8Bit, JPEGLSLossless, generate_uid

from bundle.cases import CaseError, Collection, collect, read_case
from bundle.cases.case import Case
from bundle.cases.dicom import SeriesSelection
from tests.support.dicom_files import (
    SECONDARY_CAPTURE,
    SHAPE,
    SPACING,
    STEP,
    Ct,
    compress,
    film,
    new_dataset,
    ramp,
    report,
    save,
    set_pixels,
)

VALUES = (np.add.outer(np.arange(40) * 90, np.arange(30) * 7) % 4096).astype(np.uint16)


def only(found: Collection) -> Case:
    assert len(found.references) == 1 and not found.failures, found
    return read_case(found.references[0])


# --- what is a case ------------------------------------------------------------------------------------------


def test_a_tree_of_all_kinds(tmp_path: Path) -> None:
    first, second = Ct(), Ct(count=5)
    first.write(tmp_path / "a" / "thin")
    second.write(tmp_path / "a" / "thick", "{}".format)
    third = Ct(count=4)
    for dataset in third.slices:
        dataset.StudyInstanceUID = first.study
    third.write(tmp_path / "a" / "thin", "late{}".format)
    save(film(VALUES), tmp_path / "films" / "pa.dcm")
    save(film(VALUES), tmp_path / "films" / "lat.dcm")
    Image.new("L", (32, 32), 9).save(tmp_path / "picture.png")
    segmentation = new_dataset("1.2.840.10008.5.1.4.1.1.66.4", first.study, generate_uid())
    segmentation.Modality, segmentation.Rows = "SEG", 16
    save(segmentation, tmp_path / "a" / "seg.dcm")
    save(report(first.study, ("Findings", "Liver enlarged.")), tmp_path / "a" / "report.dcm")
    found = collect(tmp_path)
    assert not found.failures
    ids = [one.id for one in found.references]
    assert ids[0] == "picture" and {"thick", "lat", "pa"} < set(ids) and len(set(ids)) == 6
    assert sum(one.startswith("thin-") for one in ids) == 2
    assert {str(one) for one in found.excluded} == {
        "a/seg.dcm is a segmentation (SEG), not an image.",
        "a/report.dcm is a structured report (SR), not an image.",
    }
    shapes = {one.id.split("-")[0]: read_case(one).array.shape for one in found.references}
    assert shapes["thick"] == (1, *SHAPE[::-1], 5) and shapes["pa"] == (1, 40, 30)


def test_ids_are_stable_and_name_nobody(tmp_path: Path) -> None:
    ct = Ct(count=3)
    names = ("jane_sorrow", "HX-48151", "scan 20200229", "SORROW^JANE 1")
    for name in names:
        (found,) = collect(ct.write(tmp_path / name)).references
        assert found.id.startswith("series-") and len(found.id) == len("series-") + 8
    assert len({collect(tmp_path / name).references[0].id for name in names}) == 1
    (found,) = collect(ct.write(tmp_path / "thorax")).references
    assert found.id == "thorax"
    # A second series of that name: hashes tell them apart, not the folders above them.
    Ct(count=2).write(tmp_path / "x" / "thorax")
    both = [one.id for one in collect([tmp_path / "thorax", tmp_path / "x"]).references]
    assert all(one.startswith("thorax-") for one in both) and len(set(both)) == 2


def test_files_as_sources(tmp_path: Path) -> None:
    ct = Ct(count=4)
    folder = ct.write(tmp_path / "thorax")
    array, _ = ct.truth()
    (single,) = collect(folder / "IM0002.dcm").references
    assert single.id == "IM0002" and read_case(single).array.shape[-1] == 1
    case = only(collect(sorted(folder.iterdir())))
    assert np.array_equal(np.sort(case.array[0, 0, 0]), np.sort(array[0, 0]))
    (tmp_path / "text.dcm").write_text("nothing")
    found = collect([folder, tmp_path / "text.dcm"])
    assert [one.id for one in found.failures] == ["text.dcm"]
    assert "is not DICOM in spite of its name" in found.failures[0].error


def test_dicomdir_as_a_source(tmp_path: Path) -> None:
    from test_dicom_breakages import ROWS

    ROWS["DICOMDIR beside them"][0](tmp_path / "disc")
    assert only(collect(tmp_path / "disc" / "media" / "DICOMDIR")).array.shape[-1] == 12


def test_datalists_may_name_series(tmp_path: Path) -> None:
    folder = Ct(count=4).write(tmp_path / "thorax")
    Ct(count=2).write(tmp_path / "two" / "a")
    Ct(count=2).write(tmp_path / "two" / "b")
    entries = [{"image": "thorax", "text": "the liver"}, {"image": "two"}]
    (tmp_path / "list.json").write_text(json.dumps({"test": entries}))
    found = collect(tmp_path / "list.json")
    (one,) = found.references
    assert one.image == folder and (one.prompt, one.prompt_source) == ("the liver", "datalist")
    assert read_case(one).array.shape[-1] == 4
    assert "holds 2 DICOM series" in found.failures[0].error


def test_a_folder_that_holds_no_image_of_the_patient(tmp_path: Path) -> None:
    ct = Ct(count=1)
    ct.slices[0].ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    ct.write(tmp_path)
    with pytest.raises(CaseError, match="nothing is segmented .a localizer.; send"):
        collect(tmp_path)
    # What is named is taken.
    assert only(collect(tmp_path, selection=SeriesSelection(ct.series))).array.shape[-1] == 1


@pytest.mark.parametrize(
    ("options", "kept", "reason"),
    [
        ({"series_description": "*2.5 b30*"}, {"axial", "coronal", "film"}, "description"),
        ({"min_slices": 5}, {"axial", "film"}, "fewer than 5"),
        ({"orientation": "coronal"}, {"coronal", "film"}, "not coronal"),
        ({"series_modality": "DX"}, {"film"}, "not DX"),
    ],
)
def test_selection(tmp_path: Path, options: dict[str, Any], kept: set[str], reason: str) -> None:
    Ct(count=8).write(tmp_path / "axial")
    Ct(count=4, orientation=(1.0, 0, 0, 0, 0, -1.0)).write(tmp_path / "coronal")
    other = Ct(count=3)
    for dataset in other.slices:
        dataset.SeriesDescription = "Lung"
    other.write(tmp_path / "lung")
    save(film(VALUES, SeriesDescription="Thorax 2.5 B30"), tmp_path / "film" / "1")
    found = collect(tmp_path, selection=SeriesSelection(**options))
    assert {one.image.name if one.image.is_dir() else "film" for one in found.references} == kept
    assert len(found.excluded) == 4 - len(kept)
    assert any(reason in one.reason for one in found.excluded)


def test_what_is_left_out_names_the_file_and_the_option_that_would_take_it(tmp_path: Path) -> None:
    thorax, scout = Ct(count=8), Ct(count=1)
    thorax.write(tmp_path / "thorax")
    scout.slices[0].ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    save(scout.slices[0], tmp_path / "thorax" / "scout.dcm")
    Ct(count=2).write(tmp_path / "short" / "a")
    save(report(thorax.study, ("Findings", "Liver.")), tmp_path / "reports" / "1")
    found = collect(tmp_path, selection=SeriesSelection(min_slices=5))
    short = next(one for one in found.excluded if one.input == "short/a")
    assert {str(one) for one in found.excluded} == {
        f"thorax/scout.dcm is a localizer; series {scout.series} takes it.",
        f"short/a (2 files, series {short.series}) has 2 slices, fewer than 5; min_slices 2 takes it.",
        "reports/1 is a structured report (SR), not an image.",
    }
    taken = collect(tmp_path, selection=SeriesSelection(series=(scout.series,)))
    assert [one.id for one in taken.references] == ["thorax"] and "scout" in str(taken.references[0].image)


@pytest.mark.parametrize("tag", [b"\x20\x00\x0e\x00", b"\x28\x00\x10\x00"])
@pytest.mark.parametrize("further", [0, 3, 6, 9])
def test_a_file_cut_within_its_header_is_called_so(tmp_path: Path, tag: bytes, further: int) -> None:
    """Within SeriesInstanceUID, or at Rows."""
    if tag[0] == 0x28 and further == 9:
        pytest.skip("all of Rows but its last byte is there")
    folder = Ct(count=1).write(tmp_path / "one")
    (path,) = folder.iterdir()
    content = path.read_bytes()
    path.write_bytes(content[: content.index(tag) + further])
    (failure,) = collect(folder).failures
    assert failure.error == "IM0000.dcm: is cut short within its header; copy or export it again."
    Ct(count=4).write(tmp_path / "one", "whole{}.dcm".format)
    (case,) = collect(folder).references
    assert any(
        "1 file that cannot be read as DICOM or end too early" in one for one in read_case(case).warnings
    )


def test_selection_by_uid(tmp_path: Path) -> None:
    one, other = Ct(count=3), Ct(count=4)
    one.write(tmp_path / "one")
    other.write(tmp_path / "other")
    found = collect(tmp_path, selection=SeriesSelection(f"{other.series}"))
    assert [reference.id for reference in found.references] == ["other"] and len(found.excluded) == 1
    found = collect(tmp_path, selection=SeriesSelection([other.series, "1.2.3"]))
    assert "has no series 1.2.3" in found.failures[0].error
    with pytest.raises(CaseError, match=r"has no series 1\.2\.3"):
        collect(tmp_path, selection=SeriesSelection("1.2.3"))
    for wrong in ({"series": "$import os"}, {"min_slices": 0}, {"orientation": "upright"}):
        with pytest.raises(CaseError):
            SeriesSelection(**wrong)  # type: ignore[arg-type]


def test_stated_modality_lets_others_through(tmp_path: Path) -> None:
    ct = Ct()
    for dataset in ct.slices:
        dataset.Modality = "MR"
        set_pixels(dataset, ramp(int(dataset.InstanceNumber) - 1) + 2000)
        del dataset.RescaleSlope, dataset.RescaleIntercept
    ct.write(tmp_path / "mr")
    with pytest.raises(CaseError, match="has modality MR, and this bundle segments CT"):
        only(collect(tmp_path))
    case = only(collect(tmp_path, modality="CT"))
    assert case.modality == "CT" and case.modality_source == "option"
    assert any("modality MR; it was read as CT" in text for text in case.warnings)
    assert case.array[0, 0, 0, 0] == ramp(0)[0, 0] + 2000


def test_repaired_identifiers_are_the_same_everywhere(tmp_path: Path) -> None:
    ct = Ct(count=3)
    for dataset in ct.slices:
        dataset.StudyInstanceUID = dataset.SeriesInstanceUID = ""
    here, there = (only(collect(ct.write(tmp_path / name))).header for name in ("here", "there"))
    assert (here.study_uid, here.series_uid) == (there.study_uid, there.series_uid)
    assert {header.SeriesInstanceUID for header in here.datasets()} == {here.series_uid}
    summary = only(collect(tmp_path / "here")).source_series
    assert summary is not None and summary["identifiers_filled_in"] == [
        "SeriesInstanceUID",
        "StudyInstanceUID",
    ]
    assert summary["slices"] == 3 and "Sorrow" not in json.dumps(summary)


# --- enhanced multi-frame ------------------------------------------------------------------------------------


def enhanced(order: list[int], tilt: float = 0.0) -> tuple[Any, Ct]:
    """An enhanced CT whose frames lie in any order, with a rescale of their own each."""
    ct = Ct(count=len(order), lean=tilt)
    dataset = new_dataset("1.2.840.10008.5.1.4.1.1.2.1", ct.study, ct.series)
    dataset.Modality, dataset.ImageType = "CT", ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    dataset.FrameOfReferenceUID = ct.frame
    set_pixels(dataset, np.stack([ramp(index) + 1100 + index for index in order]))
    dataset.NumberOfFrames = len(order)

    def item(name: str, **values: Any) -> Any:
        group, inner = pydicom.Dataset(), pydicom.Dataset()
        for keyword, value in values.items():
            setattr(inner, keyword, value)
        setattr(group, name, [inner])
        return group

    shared = item("PixelMeasuresSequence", PixelSpacing=list(SPACING), SliceThickness=STEP)
    shared.update(item("PlaneOrientationSequence", ImageOrientationPatient=[1.0, 0, 0, 0, 1.0, 0]))
    dataset.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for index in order:
        position = [float(value) for value in np.round(ct.position(index), 6)]
        frame = item("PlanePositionSequence", ImagePositionPatient=position)
        frame.update(
            item(
                "PixelValueTransformationSequence",
                RescaleSlope=1.0,
                RescaleIntercept=-1100.0 - index,
                RescaleType="HU",
            )
        )
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = frames
    return dataset, ct


@pytest.mark.parametrize("tilt", [0.0, 0.4])
def test_enhanced_multi_frame(tmp_path: Path, tilt: float) -> None:
    order = [3, 0, 4, 1, 2]
    dataset, ct = enhanced(order, tilt)
    save(dataset, tmp_path / "enhanced" / "1.dcm")
    case = only(collect(tmp_path))
    array, affine = ct.truth()
    np.testing.assert_array_equal(case.array[0], array)
    np.testing.assert_allclose(case.affine, affine, atol=1e-5)
    assert case.header.frames == (2, 4, 5, 1, 3) and len(case.header.files) == 1
    assert any("tilted" in text for text in case.warnings) == bool(tilt)


@pytest.mark.parametrize(("order", "words"), [([0, 1, 3, 4], "unevenly"), ([0, 1, 1, 2], "one position")])
def test_enhanced_multi_frame_that_is_no_stack(tmp_path: Path, order: list[int], words: str) -> None:
    save(enhanced(order)[0], tmp_path / "1.dcm")
    with pytest.raises(CaseError, match=words):
        only(collect(tmp_path))


def test_frames_without_places(tmp_path: Path) -> None:
    dataset, _ = enhanced([0, 1, 2])
    del dataset.PerFrameFunctionalGroupsSequence
    save(dataset, tmp_path / "1.dcm")
    with pytest.raises(CaseError, match="without saying where each lies"):
        only(collect(tmp_path))


# --- films and pictures --------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [{}, {"WindowCenter": 1800, "WindowWidth": 2400}])
@pytest.mark.parametrize("signed", [False, True])
def test_both_polarities_of_a_film_are_one_array(
    tmp_path: Path, window: dict[str, Any], signed: bool
) -> None:
    shift, top = (2048, -1) if signed else (0, 4095)
    values = VALUES.astype(np.int32) - shift
    bits = {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": int(signed)}
    if window:
        window = {**window, "WindowCenter": window["WindowCenter"] - shift}
    inverse = {**window, "WindowCenter": top - window["WindowCenter"] + 1} if window else {}
    save(film(values.astype(np.int16), **bits, **window), tmp_path / "2" / "film")
    save(
        film(
            (top - values).astype(np.int16), "MONOCHROME1", PresentationLUTShape="INVERSE", **bits, **inverse
        ),
        tmp_path / "1" / "film",
    )
    one, two = (only(collect(tmp_path / name)) for name in "12")
    np.testing.assert_allclose(one.array, two.array, atol=1e-2)
    assert one.photometric == two.photometric == "MONOCHROME2"
    assert one.modality == "X-ray" and one.affine is None and one.full_scale == 4095
    if not window:
        np.testing.assert_array_equal(two.array[0], VALUES)
    else:
        inside = np.abs(VALUES - 1800.0) < 1000
        assert two.array.min() == 0 and two.array.max() == 4095
        expected = ((VALUES - 1799.5) / 2399 + 0.5) * 4095
        np.testing.assert_allclose(two.array[0][inside], expected[inside], atol=0.1)


def test_films_are_what_highdicom_shows(tmp_path: Path) -> None:
    highdicom = pytest.importorskip("highdicom")
    for name, options in (
        ("window", {"WindowCenter": 1800, "WindowWidth": 2400}),
        ("sigmoid", {"WindowCenter": 1800, "WindowWidth": 2400, "VOILUTFunction": "LINEAR_EXACT"}),
        ("inverse", {"photometric": "MONOCHROME1", "WindowCenter": 900, "WindowWidth": 2400}),
    ):
        dataset = film(VALUES, BitsStored=12, HighBit=11, **options)
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
        path = save(dataset, tmp_path / name / "film")
        case = only(collect(tmp_path / name))
        frame = highdicom.imread(path).get_frame(
            1,
            dtype=np.float64,
            apply_voi_transform=True,
            voi_output_range=(0, 4095),
            apply_presentation_lut=True,
        )
        np.testing.assert_allclose(case.array[0], frame, atol=0.05)


def test_a_voi_table(tmp_path: Path) -> None:
    table = pydicom.Dataset()
    data = (np.linspace(0, 1, 4096) ** 2 * 1023).astype("<u2")
    table.LUTDescriptor = [4096, 0, 10]
    table["LUTDescriptor"].VR = "US"
    table.add_new(0x00283006, "OW", data.tobytes())
    save(film(VALUES, BitsStored=12, HighBit=11, VOILUTSequence=[table]), tmp_path / "film")
    case = only(collect(tmp_path))
    np.testing.assert_allclose(case.array[0], data[VALUES] / 1023 * 4095, atol=0.5)


@pytest.mark.parametrize(
    "window", [{"WindowCenter": -9000, "WindowWidth": 10}, {"WindowCenter": 5, "WindowWidth": 0}]
)
def test_a_window_that_shows_nothing_is_not_applied(tmp_path: Path, window: dict[str, Any]) -> None:
    save(film(VALUES, BitsStored=12, HighBit=11, **window), tmp_path / "film")
    case = only(collect(tmp_path))
    np.testing.assert_array_equal(case.array[0], VALUES)
    assert any("not applied" in text for text in case.warnings)


def test_films_that_were_scanned(tmp_path: Path) -> None:
    capture = new_dataset(SECONDARY_CAPTURE, generate_uid(), generate_uid())
    capture.Modality, capture.ImageType = "OT", ["DERIVED", "SECONDARY"]
    set_pixels(capture, (VALUES // 16).astype(np.uint8))
    save(capture, tmp_path / "film")
    with pytest.raises(CaseError, match="secondary capture"):
        collect(tmp_path)
    case = only(collect(tmp_path, modality="X-ray"))
    assert case.modality == "X-ray" and case.full_scale == 255
    np.testing.assert_array_equal(case.array[0], VALUES // 16)
    capture.Modality = "CR"
    save(capture, tmp_path / "film")
    assert only(collect(tmp_path)).modality == "X-ray"


def test_films_for_processing_are_left_out(tmp_path: Path) -> None:
    save(film(VALUES, PresentationIntentType="FOR PROCESSING"), tmp_path / "raw")
    save(film(VALUES), tmp_path / "film")
    found = collect(tmp_path)
    assert [one.id for one in found.references] == ["film"]
    assert [one.reason for one in found.excluded] == ["is a film for processing, not for presentation"]


@pytest.mark.parametrize("space", ["RGB", "planar", "YBR_FULL", "JPEG"])
def test_colour(tmp_path: Path, space: str) -> None:
    from io import BytesIO

    from pydicom.pixels import convert_color_space

    colours = np.stack([np.indices((32, 40))[0] * 5, np.indices((32, 40))[1] * 4, np.full((32, 40), 90)], -1)
    colours = colours.astype(np.uint8)
    dataset = new_dataset("1.2.840.10008.5.1.4.1.1.77.1.2", generate_uid(), generate_uid())
    dataset.Modality, dataset.ImageType = "GM", ["ORIGINAL", "PRIMARY"]
    set_pixels(dataset, colours[..., 0])
    dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, int(space == "planar")
    dataset.PhotometricInterpretation = {"planar": "RGB", "JPEG": "YBR_FULL_422"}.get(space, space)
    stored = convert_color_space(colours, "RGB", "YBR_FULL") if space == "YBR_FULL" else colours
    dataset.PixelData = (stored.transpose(2, 0, 1) if space == "planar" else stored).tobytes()
    if space == "JPEG":
        stream = BytesIO()
        Image.fromarray(colours).save(stream, "JPEG", quality=95)
        compress(dataset, JPEGBaseline8Bit, stream.getvalue())
    save(dataset, tmp_path / "tile")
    case = only(collect(tmp_path))
    assert case.modality == "H&E" and case.full_scale == 255
    np.testing.assert_allclose(case.array, colours.transpose(2, 0, 1), atol=12 if space == "JPEG" else 1.01)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"NumberOfFrames": 2}, "bytes where its header says|frames"),
        ({"Rows": 4}, "bytes|too small"),
        ({"PixelData": b"\0" * 10}, "bytes where"),
        ({"Modality": "US"}, "has modality US"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.77.1.6", "Modality": "SM"}, "whole-slide"),
    ],
)
def test_films_that_cannot_be_used(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    save(film(VALUES, **change), tmp_path / "film")
    with pytest.raises(CaseError, match=words):
        only(collect(tmp_path))


def test_a_film_by_jpeg_ls(tmp_path: Path) -> None:
    dataset = film(VALUES, BitsStored=12, HighBit=11)
    dataset.compress(JPEGLSLossless)
    save(dataset, tmp_path / "film")
    np.testing.assert_array_equal(only(collect(tmp_path)).array[0], VALUES)


# --- prompts from the record ---------------------------------------------------------------------------------


def prompt_of(found: Collection) -> tuple[str, str]:
    (one,) = found.references
    return one.prompt, one.prompt_source


def test_the_report_of_the_study_is_the_prompt(tmp_path: Path) -> None:
    ct = Ct(count=3)
    ct.write(tmp_path / "ct")
    save(report(generate_uid(), ("Findings", "Of another study.")), tmp_path / "sr" / "0")
    assert prompt_of(collect(tmp_path))[0] == ""
    text = "Jane Sorrow, HX-48151: the liver is enlarged."
    save(
        report(ct.study, ("History", "Pain."), ("Findings", text), ("Impression", "Liver.")),
        tmp_path / "sr" / "1",
    )
    prompt, source = prompt_of(collect(tmp_path))
    assert (prompt, source) == ("[name], [number]: the liver is enlarged.\nLiver.", "DICOM SR")
    later = report(ct.study, ("Text", "Left kidney."))
    later.ContentTime = "235900"
    save(later, tmp_path / "sr" / "2")
    (one,) = collect(tmp_path).references
    assert one.prompt == "Left kidney." and any("2 reports" in note for note in read_case(one).warnings)
    # What is nearer, or given, comes first.
    (tmp_path / "ct" / "prompt.txt").write_text("the spleen\n")
    assert prompt_of(collect(tmp_path)) == ("the spleen", "sidecar")
    assert prompt_of(collect(tmp_path, prompts="aorta")) == ("aorta", "option")
    assert prompt_of(collect(tmp_path, prompts={"ct": "aorta"}, prompts_from="file")) == ("aorta", "file")
    assert prompt_of(collect(tmp_path, prompts="")) == ("", "option")


def test_reports_that_are_no_prose(tmp_path: Path) -> None:
    ct = Ct(count=3)
    ct.write(tmp_path / "ct")
    dose = report(ct.study, ("Findings", "CTDIvol"), sop_class="1.2.840.10008.5.1.4.1.1.88.67")
    save(dose, tmp_path / "dose")
    (tmp_path / "broken.dcm").write_bytes((tmp_path / "dose").read_bytes()[:300])
    assert prompt_of(collect(tmp_path))[0] == ""


def test_text_beside_an_image(tmp_path: Path) -> None:
    Image.new("L", (32, 32)).save(tmp_path / "film.png")
    Image.new("L", (32, 32)).save(tmp_path / "other.png")
    (tmp_path / "film.txt").write_text("left lower zone\n")
    (tmp_path / "other.json").write_text(json.dumps({"EchoTime": 3}))
    (tmp_path / "README.txt").write_text("not a prompt")
    prompts = {one.id: (one.prompt, one.prompt_source) for one in collect(tmp_path).references}
    assert prompts["film"] == ("left lower zone", "sidecar") and prompts["other"][0] == ""
    (tmp_path / "other.json").write_text(json.dumps({"prompt": "$import os"}))
    assert {one.prompt for one in collect(tmp_path).references} == {"left lower zone", "$import os"}
    (tmp_path / "film.txt").write_bytes(b"\xff\xfe\x00")
    note = next(one.notes for one in collect(tmp_path).references if one.id == "film")
    assert "film.txt is not UTF-8" in note[0]
