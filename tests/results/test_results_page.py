"""The run's page: safe to open, nothing from elsewhere, failures first."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from bundle.results import Prediction, write_index, write_prediction
from bundle.results import page as page_module

Make = Callable[..., Prediction]
NASTY = "<script>alert(1)</script> & \"quoted\" 'single' <img src=https://example.org/x.png>"


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def _tags(page: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = _Tags()
    parser.feed(page)
    return parser.tags


def _case(case_id: str, status: str = "done", **more: Any) -> dict[str, Any]:
    return {"id": case_id, "input": f"in/{case_id}", "status": status, "error": None, "files": [], **more}


def test_prompts_and_errors_are_text(tmp_path: Path, make_prediction: Make) -> None:
    prediction = make_prediction(prompt=NASTY, labels={1: "<i>liver"}, warnings=["<u>warning"])
    done = write_prediction(prediction, tmp_path)
    cases = [
        _case("case_1", files=done["files"], seconds=3.25),
        _case("<b>id", "failed", error=NASTY, files=["javascript:alert(1)", "a'b\"c<d> ?#.nii.gz"]),
    ]
    run = {"cases": cases, "command": ["segment", "--prompt", NASTY], "versions": {"<s>": NASTY}, "seed": 0}
    page = write_index(tmp_path, run).read_text(encoding="utf-8")
    tags = _tags(page)
    assert not {"i", "u", "s"} & {tag for tag, _ in tags}
    assert sum(tag == "script" for tag, _ in tags) == 1 and sum(tag == "img" for tag, _ in tags) == 1
    assert page.count("&lt;script&gt;") == 4
    targets = [attributes["href"] or "" for tag, attributes in tags if tag == "a"]
    assert "./case_1/mask.nii.gz" in targets and "./javascript%3Aalert%281%29" in targets
    assert "./a%27b%22c%3Cd%3E%20%3F%23.nii.gz" in targets
    assert all(target.startswith("./") for target in targets)
    assert "<b>liver" not in page and "3.2 s" in page


def test_nothing_is_loaded_from_elsewhere(tmp_path: Path, make_prediction: Make) -> None:
    write_prediction(make_prediction(), tmp_path)
    page = write_index(tmp_path, {"cases": [_case("case_1")]}).read_text(encoding="utf-8")
    tags = _tags(page)
    assert "http:" not in page and "https:" not in page and "@import" not in page
    assert not {"link", "iframe", "object", "base"} & {tag for tag, _ in tags}
    assert all(
        (attributes["src"] or "").startswith("data:image/jpeg") for tag, attributes in tags if tag == "img"
    )
    assert not any(
        "style" in attributes or "src" in attributes for tag, attributes in tags if tag == "script"
    )
    assert not any(name.startswith("on") or name == "style" for _, attributes in tags for name in attributes)
    policy = next(attributes["content"] or "" for tag, attributes in tags if "http-equiv" in attributes)
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy


def test_failures_come_first_with_their_reason(tmp_path: Path, make_prediction: Make) -> None:
    write_prediction(make_prediction(empty=True), tmp_path)
    cases = [_case("case_1"), _case("bad_1", "failed", error="slices are missing")]
    page = write_index(tmp_path, {"cases": cases}).read_text(encoding="utf-8")
    assert page.index("bad_1") < page.index("case_1")
    assert "2 cases: 1 done" in page and "1 failed" in page and "slices are missing" in page
    assert "No structure found" in page and "data-marks='done empty'" in page
    assert "Research use only" in page


def test_a_thousand_cases_stay_a_page(
    tmp_path: Path, make_prediction: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert page_module.MAX_THUMBNAILS == 200
    monkeypatch.setattr(page_module, "MAX_THUMBNAILS", 8)
    result = write_prediction(make_prediction(prompt="word " * 5000), tmp_path)
    files = result["files"]
    cases = [_case("case_1", files=files, seconds=1.0) for _ in range(200)]
    cases += [_case(f"missing_{index}") for index in range(1000 - len(cases))]
    path = write_index(tmp_path, {"cases": cases})
    page = path.read_text(encoding="utf-8")
    assert len(re.findall("<img ", page)) == 8
    assert "first 8 cases" in page
    assert path.stat().st_size < 3_000_000


def test_a_damaged_case_leaves_a_gap_only(tmp_path: Path, make_prediction: Make) -> None:
    write_prediction(make_prediction(), tmp_path)
    (tmp_path / "case_1" / "report.json").write_text("{half")
    (tmp_path / "case_1" / "preview.png").write_bytes(b"\x89PNG half")
    page = write_index(tmp_path, {"cases": [_case("case_1"), _case("../up")]}).read_text(encoding="utf-8")
    assert "case_1" in page and "<img" not in page
    assert write_index(tmp_path, {}).exists()
