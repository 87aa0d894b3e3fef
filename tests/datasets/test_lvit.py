"""A folder in LViT's layout becomes a datalist, and what makes its splits untrustworthy is named."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pytest
from numpy.typing import NDArray
from PIL import Image

from bundle.cases import CaseError, collect_cases, read_case, read_label
from bundle.datasets.examining import compile_patient_pattern, patient_of
from bundle.datasets.lvit import import_lvit
from bundle.datasets.split_report import datalist_report, report_lines

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "prepare_data.py"
EDGE = 48
Report = dict[str, Any]


def picture(seed: int, channels: int = 1) -> NDArray[np.uint8]:
    """Blobs that no two seeds share, as films of two patients."""
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 12, channels), dtype=np.uint8)
    large = [
        Image.fromarray(coarse[..., c]).resize((EDGE, EDGE), Image.Resampling.BICUBIC)
        for c in range(channels)
    ]
    return np.stack([np.asarray(plane) for plane in large], axis=-1).squeeze()


def truth(white: int = 255) -> NDArray[np.uint8]:
    mask = np.zeros((EDGE, EDGE), dtype=np.uint8)
    mask[8:20, 8:20] = white
    return mask


def save(path: Path, array: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def write_sheet(path: Path, rows: Sequence[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8-sig") as stream:
            csv.writer(stream, delimiter=";" if "semicolon" in path.name else ",").writerows(rows)
        return
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(list(row))
    book.save(path)


def fill(folder: Path, seeds: Mapping[str, int], sheet: str, prefix: str = "", suffix: str = ".png") -> None:
    """One split: images by name and seed, masks named prefix + name, and the sheet that names the masks."""
    rows: list[tuple[object, object]] = [("Image", "Description")]
    for name, seed in seeds.items():
        mask = f"{prefix}{Path(name).stem}{suffix}"
        save(folder / "img" / name, picture(seed))
        save(folder / "labelcol" / mask, truth())
        rows.append((mask, f"text of {seed}, with a comma"))
    write_sheet(folder / sheet, rows)


TRAINING = {f"sub-S0{n}_ses-E{n}_dx.png": n for n in range(1, 7)}
TEST = {"sub-S91_ses-E91_dx.png": 91, "sub-S92_ses-E92_dx.png": 92}


@pytest.fixture
def qata(tmp_path: Path) -> Path:
    root = tmp_path / "QaTa"
    fill(root / "Train_Folder", TRAINING, "Train_text.xlsx", prefix="mask_")
    fill(root / "Test_Folder", TEST, "Test_text.xlsx", prefix="mask_")
    return root


def imported(root: Path, **options: Any) -> tuple[Report, dict[str, Any]]:
    output = root.parent / "lists" / "datalist.json"
    report = import_lvit(root, output, "X-ray", "infection", **options)
    assert json.loads((output.parent / "datalist.json.report.json").read_text(encoding="utf-8")) == report
    assert all(isinstance(line, str) for line in report_lines(report))
    return report, json.loads(output.read_text(encoding="utf-8"))


def names(items: list[dict[str, str]]) -> set[str]:
    return {Path(item["image"]).name for item in items}


# --- layouts ---------------------------------------------------------------------------------------------


def test_the_datalist_is_one_that_cases_are_collected_from(qata: Path) -> None:
    report, datalist = imported(qata)
    assert datalist["name"] == "QaTa" and datalist["modality"] == "X-ray"
    assert datalist["labels"] == {"0": "background", "1": "infection"}
    assert {split: len(datalist[split]) for split in ("training", "validation", "test")} == {
        "training": 5,
        "validation": 1,
        "test": 2,
    }
    assert datalist["test"][0]["image"] == "../QaTa/Test_Folder/img/sub-S91_ses-E91_dx.png"
    references, failures = collect_cases(qata.parent / "lists" / "datalist.json", split="test")
    assert not failures and [reference.prompt for reference in references] == [
        "text of 91, with a comma",
        "text of 92, with a comma",
    ]
    case = read_case(references[0])
    assert case.modality == "X-ray" and read_label(references[0], case).sum() == 12 * 12
    assert not report["failed"] and not any(report["leaks"].values())


@pytest.mark.parametrize(
    ("image", "prefix", "suffix", "sheets"),
    [
        ("sub-S{:02}_ses-E1_cr.jpg", "mask_", ".png", ("Train_text.xlsx", "Val_text.xlsx", "Test_text.xlsx")),
        ("TCGA-A7-A1{:02}-01Z-00-DX1.PNG", "", ".png", ("text.csv", "text.csv", "text.csv")),
        ("Morozov_study_{:04}_3.png", "", ".bmp", ("text semicolon.csv",) * 3),
        ("{}.png", "", ".png", ("../all_text.xlsx", "Val_text.csv", "Test_text.csv")),
    ],
)
def test_every_naming_style_is_read(
    tmp_path: Path, image: str, prefix: str, suffix: str, sheets: Sequence[str]
) -> None:
    root = tmp_path / "set"
    folders = ("Train_Folder", "Val_Folder", "Test_Folder")
    for number, (folder, sheet) in enumerate(zip(folders, sheets, strict=True)):
        seeds = {image.format(10 * number + n): 10 * number + n for n in range(1, 4)}
        fill(root / folder, seeds, sheet, prefix, suffix)
    report, datalist = imported(root)
    for number, split in enumerate(("training", "validation", "test")):
        assert [item["text"] for item in datalist[split]] == [
            f"text of {10 * number + n}, with a comma" for n in range(1, 4)
        ]
    assert not report["failed"] and not report["texts_without_image"] and not any(report["leaks"].values())
    assert report["patients"] == {"training": 3, "validation": 3, "test": 3}


def test_one_sheet_for_two_splits_and_names_that_excel_made_numbers(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for folder, numbers in (("Train_Folder", (1, 2)), ("Val_Folder", (3,)), ("Test_Folder", (4,))):
        for number in numbers:
            save(root / folder / "img" / f"{number}.png", picture(number))
            save(root / folder / "labelcol" / f"{number}.png", truth(1))
    rows = [
        ("image ", "DESCRIPTION", "note"),
        (1, "one"),
        (2.0, "two"),
        ("3.png", "three"),
        (None, "nobody's"),
    ]
    write_sheet(root / "Train_Folder" / "Train_Val_text.xlsx", rows)
    write_sheet(root / "Test_text.csv", [("Image", "Description"), ("4.png", "four"), ("5.png", "five")])
    report, datalist = imported(root)
    assert [item["text"] for split in ("training", "validation", "test") for item in datalist[split]] == [
        "one",
        "two",
        "three",
        "four",
    ]
    assert report["texts_without_image"] == ["5.png"] and not report["texts"]["missing"]


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("sub-S09352_ses-E17497_run-1_bp-chest_vp-ap_dx.png", "S09352"),
        ("mask_sub-s09352_ses-e17497.webp", "S09352"),
        ("TCGA-A7-A13F-01Z-00-DX1.png", "TCGA-A7-A13F"),
        ("Morozov_study_0255_10.png", "MOROZOV_STUDY_0255"),
        ("Jun_radiopaedia_10_85902_1_case10_7.png", "JUN_RADIOPAEDIA_10_85902_1_CASE10"),
        ("covid_3511.nii.gz", None),
    ],
)
def test_patients_of_known_namings(name: str, patient: str | None) -> None:
    assert patient_of(name) == ((patient, True) if patient else ("COVID_3511", False))


def test_validation_is_put_aside_by_whole_patients_and_by_seed(tmp_path: Path) -> None:
    root = tmp_path / "set"
    seeds = {f"p{n // 4}-slice{n}.png": n for n in range(40)}
    fill(root / "Train_Folder", seeds, "Train_text.csv")
    pattern = compile_patient_pattern(r"^p(\d+)-")

    def aside(seed: int) -> set[str]:
        report, datalist = imported(root, pattern=pattern, validation_share=0.3, seed=seed)
        assert len(datalist["validation"]) == 12 and len(datalist["training"]) == 28
        assert report["patients"] == {"training": 7, "validation": 3}
        assert not report["leaks"]["patients"] and not datalist["test"]
        return names(datalist["validation"])

    assert aside(0) == aside(0) != aside(1)
    _, whole = imported(root, validation_share=0)
    assert not whole["validation"] and len(whole["training"]) == 40


def test_images_that_look_the_same_are_put_aside_together(tmp_path: Path) -> None:
    root = tmp_path / "set"
    # Four images, each also brighter and a byte-identical copy, under names that show no patient.
    seeds = {f"{kind}{n}.png": n for kind in "abc" for n in range(4)}
    fill(root / "Train_Folder", seeds, "Train_text.csv")
    for n in range(4):
        save(root / "Train_Folder" / "img" / f"b{n}.png", (picture(n) * 0.8 + 20).astype(np.uint8))
    report, datalist = imported(root, validation_share=0.5)
    assert len(datalist["training"]) == len(datalist["validation"]) == 6
    assert not any(report["leaks"].values())


# --- leaks -----------------------------------------------------------------------------------------------


@pytest.fixture
def leaking(qata: Path) -> Path:
    """S01 is also in test; S02's image is a test image, S03's one nearly; S04 is also in validation."""
    fill(
        qata / "Test_Folder",
        {**TEST, "sub-S01_ses-E7_cr.png": 71},
        "Test_text.xlsx",
        prefix="mask_",
    )
    fill(qata / "Val_Folder", {"sub-S04_ses-E8_cr.png": 81}, "Val_text.xlsx", prefix="mask_")
    training = qata / "Train_Folder" / "img"
    save(training / "sub-S02_ses-E2_dx.png", picture(91))
    softer = Image.fromarray(picture(92)).resize((40, 40)).resize((EDGE, EDGE))
    softer.save(training / "sub-S03_ses-E3_dx.png")
    return qata


def test_leaks_are_named(leaking: Path) -> None:
    report, datalist = imported(leaking)
    leaks = report["leaks"]
    assert [item["patient"] for item in leaks["patients"]] == ["S01", "S04"]
    assert [sorted(item["images"]) for item in leaks["patients"]] == [
        ["test", "training"],
        ["training", "validation"],
    ]
    assert [{Path(p[0]).name for p in group.values()} for group in leaks["identical_images"]] == [
        {"sub-S02_ses-E2_dx.png", "sub-S91_ses-E91_dx.png"}
    ]
    (near,) = leaks["near_identical_images"]
    assert {Path(images[0]).name for images in near["images"].values()} == {
        "sub-S03_ses-E3_dx.png",
        "sub-S92_ses-E92_dx.png",
    }
    assert 0 <= near["bits"] <= 32
    assert len(datalist["training"]) == 6 and not report["dropped"]


def test_drop_leaks_keeps_test_as_it_is(leaking: Path) -> None:
    report, datalist = imported(leaking, drop_leaks=True)
    assert {Path(item["image"]).name: item["reasons"] for item in report["dropped"]} == {
        "sub-S01_ses-E1_dx.png": ["patient"],
        "sub-S02_ses-E2_dx.png": ["identical image"],
        "sub-S03_ses-E3_dx.png": ["near-identical image"],
    }
    assert len(datalist["training"]) == 3 and len(datalist["validation"]) == 1 and len(datalist["test"]) == 3
    after = datalist_report(leaking.parent / "lists" / "datalist.json")
    assert [item["patient"] for item in after["leaks"]["patients"]] == ["S04"]
    assert not after["leaks"]["identical_images"] and not after["leaks"]["near_identical_images"]


def test_a_file_name_in_two_splits(tmp_path: Path) -> None:
    root = tmp_path / "set"
    fill(root / "Train_Folder", {"1.png": 1, "2.png": 2, "3.png": 3}, "text.csv")
    fill(root / "Test_Folder", {"1.png": 4}, "text.csv")
    report, datalist = imported(root, validation_share=0, drop_leaks=True)
    assert [item["name"] for item in report["leaks"]["file_names"]] == ["1.png"]
    assert report["names_without_patient"] == 4
    # a bare number is no patient: dropping leaks would leave nothing to train on
    assert report["leaks"]["patients"] == [] and len(datalist["training"]) == 3


# --- faults ----------------------------------------------------------------------------------------------


def test_faulty_masks_are_named_and_left_out(qata: Path) -> None:
    masks = qata / "Train_Folder" / "labelcol"
    (masks / "mask_sub-S01_ses-E1_dx.png").unlink()
    grey = truth()
    grey[0, :3] = (7, 128, 254)
    save(masks / "mask_sub-S02_ses-E2_dx.png", grey)
    save(masks / "mask_sub-S03_ses-E3_dx.png", truth()[:, :-8])
    save(masks / "mask_sub-S04_ses-E4_dx.png", truth(0))
    (masks / "mask_sub-S05_ses-E5_dx.png").write_bytes(b"no picture")
    save(masks / "of_nobody.png", truth())
    (qata / "Test_Folder" / "img" / "sub-S91_ses-E91_dx.png").write_bytes(b"")
    report, datalist = imported(qata, validation_share=0)
    assert names(datalist["training"]) == {"sub-S04_ses-E4_dx.png", "sub-S06_ses-E6_dx.png"}
    assert names(datalist["test"]) == {"sub-S92_ses-E92_dx.png"}
    found = report["masks"]
    assert [Path(path).name for path in found["missing"]] == ["sub-S01_ses-E1_dx.png"]
    assert found["unexpected_values"][0]["values"] == [7, 128, 254, 255]
    assert "48 x 40" in found["other_size"][0]["error"] and "48 x 48" in found["other_size"][0]["error"]
    assert [Path(path).name for path in found["empty"]] == ["mask_sub-S04_ses-E4_dx.png"]
    assert "mask_sub-S05" in found["unreadable"][0]["error"]
    assert [Path(path).name for path in report["masks_without_image"]] == ["of_nobody.png"]
    assert len(report["failed"]) == 5 and all(item["error"].endswith(".") for item in report["failed"])


def test_missing_shared_and_contradictory_texts(qata: Path) -> None:
    rows = [
        ("Image", "Description"),
        ("mask_sub-S01_ses-E1_dx.png", "the same"),
        ("mask_sub-S02_ses-E2_dx.png", "the same"),
        ("mask_sub-S02_ses-E2_dx.png", "another"),
        ("mask_sub-S03_ses-E3_dx.png", None),
        ("mask_sub-S04_ses-E4_dx.png", "alone"),
    ]
    write_sheet(qata / "Train_Folder" / "Train_text.xlsx", rows)
    report, datalist = imported(qata, validation_share=0)
    texts = report["texts"]
    assert [Path(path).name[4:7] for path in texts["missing"]] == ["S03", "S05", "S06"]
    assert texts["contradictory"] == ["mask_sub-S02_ses-E2_dx.png"]
    assert (texts["distinct"], texts["shared"], texts["cases_with_shared_text"]) == (4, 1, 2)
    assert [item["text"] for item in datalist["training"]] == ["the same", "the same", "", "alone", "", ""]
    assert not report["failed"]


def break_zip(sheet: Path) -> None:
    sheet.write_bytes(b"PK\x03\x04 no sheet")


def without_columns(sheet: Path) -> None:
    write_sheet(sheet, [("File", "Text"), ("a", "b")])


def old_format(sheet: Path) -> None:
    sheet.with_suffix(".xls").write_bytes(b"x")


def csv_in_latin1(sheet: Path) -> None:
    sheet.unlink()
    sheet.with_suffix(".csv").write_bytes("Image,Description\na,ä\n".encode("latin-1"))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (break_zip, "cannot be read as an Excel sheet"),
        (without_columns, "has no columns 'Image' and 'Description'"),
        (old_format, "old Excel format"),
        (csv_in_latin1, "not UTF-8"),
    ],
)
def test_a_sheet_that_cannot_be_read_stops_the_import(
    qata: Path, damage: Callable[[Path], None], words: str
) -> None:
    damage(qata / "Train_Folder" / "Train_text.xlsx")
    with pytest.raises(CaseError, match=re.escape(words)) as caught:
        imported(qata)
    assert "Train_text" in str(caught.value)
    assert not (qata.parent / "lists").exists()


@pytest.mark.parametrize(
    ("pattern", "words"),
    [("(", "not a regular expression"), ("abc", "0 groups"), ("(a)(b)", "2 groups"), ("a" * 201, "200")],
)
def test_patterns_that_cannot_be_used(pattern: str, words: str) -> None:
    with pytest.raises(CaseError, match=words):
        compile_patient_pattern(pattern)


def test_what_cannot_be_started(qata: Path, tmp_path: Path) -> None:
    for root, options, words in (
        (tmp_path / "nowhere", {}, "does not exist"),
        (tmp_path, {}, "neither Train_Folder nor Test_Folder"),
        (qata, {"validation_share": 1.5}, "1.5"),
    ):
        with pytest.raises(CaseError, match=words):
            import_lvit(root, tmp_path / "out.json", "X-ray", "infection", **options)
    with pytest.raises(CaseError, match="HU"):
        import_lvit(qata, tmp_path / "out.json", "CT", "infection")
    with pytest.raises(CaseError, match="put aside"):
        import_lvit(qata, tmp_path / "out.json", "X-ray", "x", pattern=compile_patient_pattern("(sub)"))
    (qata / "Train_Folder" / "labelcol").rename(qata / "Train_Folder" / "masks")
    with pytest.raises(CaseError, match="labelcol"):
        import_lvit(qata, tmp_path / "out.json", "X-ray", "infection")


# --- command ---------------------------------------------------------------------------------------------


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_the_command(leaking: Path, tmp_path: Path) -> None:
    output = tmp_path / "datalist.json"
    options = ("--output", output, "--modality", "X-ray", "--label-name", "COVID-19 infection")
    done = command("lvit", leaking, *options, "--drop-leaks")
    assert done.returncode == 0, done.stderr
    assert "patients in more than one split: 2" in done.stdout
    assert "dropped because the test split has them: 3" in done.stdout
    assert "10/10" in done.stderr  # the progress bar
    report = tmp_path / "report.json"
    again = command("leaks", output, "--output", report)
    assert again.returncode == 0 and "patients in more than one split: 1" in again.stdout
    assert json.loads(report.read_text())["leaks"]["patients"][0]["patient"] == "S04"


def test_exit_codes(qata: Path, tmp_path: Path) -> None:
    (qata / "Train_Folder" / "labelcol" / "mask_sub-S01_ses-E1_dx.png").unlink()
    options = ("--output", tmp_path / "datalist.json", "--modality", "X-ray", "--label-name", "infection")
    some = command("lvit", qata, *options)
    assert some.returncode == 1 and "sub-S01_ses-E1_dx.png: has no mask; add one" in some.stdout
    none = command("leaks", tmp_path / "missing.json")
    assert none.returncode == 2 and none.stderr.startswith("error: ") and len(none.stderr.splitlines()) == 1
