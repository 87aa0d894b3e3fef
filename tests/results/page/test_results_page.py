"""The run's page: safe to open, nothing from elsewhere, failures first, whatever texts it is given."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundle.results import Prediction, write_index, write_prediction
from tests.support.html_reader import Element, check_safe, read_html

Make = Callable[..., Prediction]
pytestmark = pytest.mark.usefixtures("quick_preview")
NASTY = "<script>alert(1)</script> & \"quoted\" 'single' </script><img src=https://example.org/x.png>"
TURNED = "\u202egnp.exe\u202c عربي"


def _case(case_id: str, status: str = "done", **more: Any) -> dict[str, Any]:
    return {"id": case_id, "input": f"in/{case_id}", "status": status, "error": None, "files": [], **more}


def _page(folder: Path, run: dict[str, Any]) -> Element:
    root = read_html(write_index(folder, run).read_text(encoding="utf-8"))
    check_safe(root)
    return root


def _rows(root: Element) -> list[Element]:
    return [row for body in root.find("tbody") for row in body.find("tr")]


def _cells(row: Element) -> dict[str, Element]:
    return {
        cell.attributes["data-title"]: cell
        for cell in row.find("th", "td")
        if "data-title" in cell.attributes
    }


@pytest.mark.parametrize("text", [NASTY, TURNED, "\x00\x1b[31m\u2028 \ud800", "{{ 7*7 }} {% raw %} ${1}"])
def test_whatever_is_given_is_text(tmp_path: Path, make_prediction: Make, text: str) -> None:
    prediction = make_prediction(prompt=text, labels={1: "<i>" + text}, warnings=["<u>" + text])
    done = write_prediction(prediction, tmp_path)
    cases = [
        _case("case_1", files=done["files"], seconds=3.25),
        _case("<b>id", "failed", error=text, files=["javascript:alert(1)", "a'b\"c<d> ?#.nii.gz", "../up"]),
    ]
    run = {
        "cases": cases,
        "command": text,
        "versions": {"<s>": text},
        "seed": 0,
        "left_out": [{"input": text, "reason": "is a localizer"}],
    }
    root = _page(tmp_path, run)
    failed, good = _rows(root)
    said = " ".join(text.encode("utf-8", "replace").decode().split())
    assert _cells(failed)["Notes"].text == said and _cells(good)["Prompt"].text == said
    assert _cells(good)["Structures"].text.startswith("<i>") and _cells(good)["Notes"].text.startswith("<u>")
    assert not {"i", "u", "s"} & {element.tag for element in root.find()}
    assert len(root.find("img")) == 1
    targets = [anchor.attributes["href"] for anchor in root.find("a")]
    assert "./case_1/mask.nii.gz" in targets and "./javascript%3Aalert%281%29" in targets
    assert "./a%27b%22c%3Cd%3E%20%3F%23.nii.gz" in targets and "./up" in targets
    assert _cells(good)["Time"].text == "3.2 s"


def test_a_row_tells_sizes_uncertainty_and_warnings(tmp_path: Path, make_prediction: Make) -> None:
    labels = {1: "liver", 2: "spleen"}
    made = [
        make_prediction(case_id="volume", labels=labels, warnings=["cut", "no header"]),
        make_prediction(case_id="film", shape=(40, 30), labels={1: "infection"}),
        make_prediction(case_id="empty", labels=labels, empty=True, prompt=""),
    ]
    reports = {one.case.reference.id: write_prediction(one, tmp_path)["report"] for one in made}
    rows = {
        _cells(row)["Case"].find("a")[0].text: row
        for row in _rows(_page(tmp_path, {"cases": map(_case, reports)}))
    }
    volume, film, empty = (_cells(rows[name]) for name in ("volume", "film", "empty"))
    millilitres = reports["volume"]["labels"]["liver"]["volume_ml"]
    assert f"liver {millilitres:.1f} ml" in volume["Structures"].text
    pixels = reports["film"]["labels"]["infection"]["area_px"]
    assert film["Structures"].text == f"infection {pixels:,} px ({100 * pixels / 1200:.1f} %)"
    assert empty["Structures"].text == "No structure found not found: liver, spleen"
    assert empty["Prompt"].text == "none"
    inside = reports["volume"]["mean_uncertainty_foreground"]
    assert volume["Uncertainty"].text == f"{inside:.3f}" and volume["Notes"].text == "cut no header"
    assert empty["Uncertainty"].text == f"{reports['empty']['mean_uncertainty']:.3f} image"
    sizes = {name: json.loads(row.attributes["data-sizes"]) for name, row in rows.items()}
    assert sizes["volume"]["liver"] == pytest.approx(millilitres) and sizes["film"] == {"infection": pixels}
    assert sizes["empty"] == {"liver": None, "spleen": None}


def test_failures_and_what_was_left_out_have_their_sentences(tmp_path: Path, make_prediction: Make) -> None:
    write_prediction(make_prediction(empty=True), tmp_path)
    write_prediction(make_prediction(case_id="bad_1"), tmp_path)  # of an earlier run
    cases = [
        _case("case_1"),
        _case("bad_1", "failed", error="in/bad_1: slices are missing; send them again."),
    ]
    root = _page(tmp_path, {"cases": cases, "left_out": [{"input": "in/scout", "reason": "is a localizer"}]})
    first, second = _rows(root)
    assert _cells(first)["Case"].text == "bad_1" and not first.find("a", "img")
    assert _cells(first)["Notes"].text == "in/bad_1: slices are missing; send them again."
    assert _cells(second)["Case"].text.startswith("case_1")
    [left_out] = root.find("section")
    assert "1 DICOM series" in left_out.text and "in/scout is a localizer." in left_out.text
    [counts] = root.find("ul", class_="counts")
    assert counts.text == "2 cases 1 done 1 failed 1 without a find"
    assert "Research use only" in root.text


def test_the_facts_of_the_run_are_folded_away(tmp_path: Path) -> None:
    run = {
        "cases": [],
        "versions": {"torch": "2.13.0"},
        "weights_sha256": "ab12",
        "seed": 0,
        "steps": 5,
        "members": 3,
        "command": "segment in --output out",
        "temperature": {"CT": 1.5},
        "mirrored": [],
        "remove_fragments": True,
    }
    [details] = _page(tmp_path, run).find("details", class_="run")
    assert "open" not in details.attributes
    facts = dict(
        zip(
            (name.text for name in details.find("dt")),
            (value.text for value in details.find("dd")),
            strict=True,
        )
    )
    assert facts == {
        "command": "segment in --output out",
        "weights sha256": "ab12",
        "seed": "0",
        "steps": "5",
        "members": "3",
        "temperature": "CT = 1.5",
        "mirrored": "none",
        "remove fragments": "yes",
        "torch": "2.13.0",
    }


def test_two_thousand_cases_with_long_prompts_stay_a_page(tmp_path: Path, make_prediction: Make) -> None:
    result = write_prediction(make_prediction(prompt="word " * 5000, labels={1: "liver"}), tmp_path)
    cases = [_case("case_1", files=result["files"], seconds=1.0) for _ in range(2000)]
    root = _page(tmp_path, {"cases": cases})
    assert len(root.find("img", loading="lazy")) == 2000
    prompt = _cells(_rows(root)[0])["Prompt"].text
    assert len(prompt) < 400 and "24,720 characters more" in prompt
    assert (tmp_path / "index.html").stat().st_size < 30_000_000


def test_a_damaged_case_leaves_a_gap_only(tmp_path: Path, make_prediction: Make) -> None:
    for case_id in ("half", "gone"):
        write_prediction(make_prediction(case_id=case_id), tmp_path)
    (tmp_path / "half" / "report.json").write_text("{half")
    (tmp_path / "half" / "thumbnail.jpg").unlink()
    (tmp_path / "gone" / "index.html").unlink()
    rows = _rows(_page(tmp_path, {"cases": [_case("half"), _case("gone"), _case("../up")]}))
    assert [len(row.find("img")) for row in rows] == [0, 0, 0]
    assert [len(row.find("a")) for row in rows] == [1, 0, 0]
    assert write_index(tmp_path, {}).exists()


def test_the_viewer_is_written_once_a_run_and_only_for_volumes(tmp_path: Path, make_prediction: Make) -> None:
    write_prediction(make_prediction(shape=(40, 30), case_id="film"), tmp_path)
    _page(tmp_path, {"cases": [_case("film"), _case("bad", "failed")]})
    assert [path.name for path in (tmp_path / "viewer").iterdir()] == ["cases.js"]
    write_prediction(make_prediction(), tmp_path)
    _page(tmp_path, {"cases": [_case("film"), _case("case_1"), _case("bad", "failed")]})
    assert {path.name for path in (tmp_path / "viewer").iterdir()} == {
        "cases.js",
        "niivue.js",
        "niivue.LICENSE.txt",
    }
    assert (tmp_path / "viewer" / "cases.js").read_text() == 'globalThis.runCases = ["film", "case_1"];\n'
    assert (tmp_path / "viewer" / "niivue.js").stat().st_size < 5_000_000
    assert len(list(tmp_path.rglob("niivue.js"))) == 1
    digest = hashlib.sha256((tmp_path / "viewer" / "niivue.js").read_bytes()).hexdigest()
    assert digest in (tmp_path / "viewer" / "niivue.LICENSE.txt").read_text(encoding="utf-8")
