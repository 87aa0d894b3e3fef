"""What of a folder is an input: results of earlier runs, files of other kinds and texts beside images are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bundle.cases import CaseError
from bundle.cases.collect import collect
from bundle.inference import find_cases
from bundle.results.result_files import known_files
from bundle.wording.asides import reads_like_prompt

RECORD = {"case": "a", "input": "a", "prompt": "", "labels": {}, "warnings": [], "research_use_only": "x"}


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def write_run(folder: Path, *cases: str) -> None:
    """As an earlier run leaves it."""
    for case in cases:
        touch(folder, *(f"{case}/{name}" for name in ("mask.png", "preview.png", "seg.dcm", "thumbnail.jpg")))
        (folder / case / "report.json").write_text(json.dumps(RECORD))
    entries = [{"id": case, "files": [f"{case}/mask.png", f"{case}/preview.png"]} for case in cases]
    (folder / "run.json").write_text(json.dumps({"cases": entries, "versions": {}}))
    touch(folder, "journal.jsonl", "index.html", "viewer/niivue.js")


def found(folder: Path, output: Path | None = None) -> tuple[list[str], list[str]]:
    """Ids of the cases, and what is said of the rest."""
    cases = find_cases(folder, output)
    return [case.id for case in cases.references], [str(one) for one in cases.excluded]


# --- own results -----------------------------------------------------------------------------------------

#: What is done to a folder with two images and the results of a run over them -> the cases of the next run.
SPOILED = {
    "as it was": (lambda run: None, ["film", "scan"]),
    "moved": (lambda run: run.rename(run.parent / "archive"), ["film", "scan"]),
    "without run.json": (lambda run: (run / "run.json").unlink(), ["film", "scan"]),
    "without report.json": (lambda run: (run / "film" / "report.json").unlink(), ["film", "scan"]),
    "one case moved": (lambda run: (run / "film").rename(run.parent / "film"), ["film", "scan"]),
    "another's image among them": (lambda run: touch(run, "film/other.png"), ["other", "film", "scan"]),
    "a report of another program": (
        lambda run: (run.parent / "report.json").write_text("{}"),
        ["film", "scan"],
    ),
}


@pytest.mark.parametrize("what", SPOILED)
def test_results_of_an_earlier_run_are_no_input(what: str, tmp_path: Path) -> None:
    touch(tmp_path, "film.png", "scan.nii.gz")
    write_run(tmp_path / "monday", "film", "scan")
    spoil, expected = SPOILED[what]
    spoil(tmp_path / "monday")
    ids, said = found(tmp_path, tmp_path / "tuesday")
    assert sorted(ids) == sorted(expected)
    assert any("of an earlier run" in one or "of earlier runs" in one for one in said), said


def test_a_folder_of_results_alone_is_refused_in_a_sentence(tmp_path: Path) -> None:
    write_run(tmp_path / "monday", "film")
    with pytest.raises(CaseError, match="no images found .*results of earlier runs"):
        find_cases(tmp_path)
    # what is named is taken
    assert found(tmp_path / "monday" / "film" / "preview.png")[0] == ["preview"]


def test_the_names_of_results_alone_make_no_results(tmp_path: Path) -> None:
    touch(tmp_path, "mask.png", "a/preview.png")
    assert sorted(found(tmp_path)[0]) == ["mask", "preview"]


def test_images_in_the_output_folder_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "out/b.png")
    write_run(tmp_path / "out", "film")
    assert found(tmp_path, tmp_path / "out") == (["a"], ["out: 1 image in the output folder: out/b.png."])


# --- files of other kinds --------------------------------------------------------------------------------


def test_files_that_nothing_reads_are_named_in_one_line(tmp_path: Path) -> None:
    touch(tmp_path, "a.mha", "a.raw", "a.txt", "b.mrxs", "b/Data0.dat", "Thumbs.db", ".DS_Store")
    assert found(tmp_path)[1] == []
    touch(tmp_path, "c.mha.gz")
    name = tmp_path.name
    assert found(tmp_path)[1] == [f"{name}: 1 file of a kind that is not read: c.mha.gz."]
    touch(tmp_path, *(f"d{number}.par" for number in range(6)))
    (said,) = found(tmp_path)[1]
    assert (
        said == f"{name}: 7 files of kinds that are not read: c.mha.gz, d0.par, d1.par, d2.par, d3.par, ...."
    )


def test_an_empty_path_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "other.png")
    for empty in ("", "  ", ["other.png", ""]):
        with pytest.raises(CaseError, match="empty path"):
            find_cases(empty)


# --- texts beside images ---------------------------------------------------------------------------------

PROMPTS = [
    "the liver",
    "livr and kidnys",
    "both kidneys, spleen\n",
    "left lower zone",
    "segment everything",
    "Findings: opacity on the left.\nImpression: pneumonia.",
    "Lungs: clear on the right. Heart: normal.\nConsolidation of the left lower lobe, 3 cm.",
    "History: 3 days of cough\nLungs are clear. 2 cm nodule",
]
NO_PROMPTS = [
    "0 0.512 0.433 0.211 0.310\n",
    "0 0.5 0.4 0.2 0.3\n1 0.1 0.2 0.1 0.1\n",
    "lung 0.51 0.43 0.21 0.31",
    "liver,10,20,30,40\nspleen,1,2,3,4",
    "Width: 224\nExported by Foo 1.2\n",
    "Created with ImageJ 1.53",
    "Modality: CR\nBodyPartExamined: CHEST\nLaterality: L",
    "<annotation><name>lung</name></annotation>",
    "Acquisition date 2020-01-01",
    "image downloaded from https://example.org/cases/123",
    "L5",
]


@pytest.mark.parametrize(
    ("text", "expected"), [(t, True) for t in PROMPTS] + [(t, False) for t in NO_PROMPTS]
)
def test_a_text_beside_an_image_is_its_prompt_where_it_reads_like_one(
    text: str, expected: bool, tmp_path: Path
) -> None:
    assert reads_like_prompt(text) is expected
    touch(tmp_path, "film.png")
    (tmp_path / "film.txt").write_text(text)
    (case,) = find_cases(tmp_path).references
    assert case.prompt == (text.strip() if expected else "")
    assert any("film.txt" in note and "text_beside" in note for note in case.notes) is not expected
    (case,) = find_cases(tmp_path, text_beside=True).references
    assert (case.prompt, case.notes) == (text.strip(), ())
    (case,) = find_cases(tmp_path, text_beside=False).references
    assert (case.prompt, case.notes) == ("", ())


def test_what_is_called_a_prompt_is_one(tmp_path: Path) -> None:
    touch(tmp_path, "film.png", "other.png")
    (tmp_path / "film.json").write_text('{"prompt": "$import os"}')
    (tmp_path / "other.json").write_text('{"text": "drawn by 3 readers"}')
    prompts = {case.id: case.prompt for case in find_cases(tmp_path).references}
    assert prompts == {"film": "$import os", "other": ""}
    with pytest.raises(CaseError, match="text_beside"):
        find_cases(tmp_path, text_beside="yes")  # type: ignore[arg-type]


# --- names that are no text ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["win\\users", "a\\1\\g<0>", b"\xe9tudes".decode("utf-8", "surrogateescape")]
)
def test_folders_of_any_name(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    touch(folder, "good.png", "bad.nii.gz", f"{name}.png")
    (folder / "gone.png").symlink_to("nothing")
    cases = find_cases(folder)
    for case in cases.references:
        told = case.deidentify(f"{folder}: is broken, as {folder}/good.png is.")
        told.encode("utf-8")
        assert str(tmp_path) not in told and told.endswith("as good.png is.")
    for one in [*cases.failures, *cases.excluded]:
        str(one).encode("utf-8")
    assert len(known_files()) > 5 and collect(folder).references
