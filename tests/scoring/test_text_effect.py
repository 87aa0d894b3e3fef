"""Text on, off and shuffled: who gets which text, and one pass over the cases that scores them all."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigWorkflow

from bundle.cases import CaseReference
from bundle.scoring import shuffled_texts, text_prompts
from bundle.transforms import LoadCased
from tests.support.fake_segmenter import READER, TEXTS, TextReader


def references(*texts: str) -> list[CaseReference]:
    return [CaseReference(f"case {number}", Path("a.png"), prompt=text) for number, text in enumerate(texts)]


# --- the assignment --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_every_case_gets_another_ones_text_and_never_its_own(seed: int) -> None:
    own = {f"case {number}": f"text {number % 7}" for number in range(60)} | {"none": ""}
    shuffled = shuffled_texts(own, seed)
    assert shuffled.keys() == own.keys()
    for case, text in shuffled.items():
        assert text != own[case] and text in own.values() and text
    backwards = dict(reversed(own.items()))
    assert shuffled_texts(backwards, seed) == shuffled
    assert shuffled_texts(own, seed + 1) != shuffled


def test_all_other_texts_are_equally_likely() -> None:
    drawn: Counter[str] = Counter()
    for seed in range(3000):
        drawn[shuffled_texts({"a": "m", "b": "m", "c": "k", "d": "x", "e": "z", "f": ""}, seed)["a"]] += 1
    assert set(drawn) == {"k", "x", "z"}
    # a thousand each, three standard deviations of which are below eighty
    assert all(abs(count - 1000) < 80 for count in drawn.values())


def test_a_case_for_which_no_other_text_exists_is_left_out() -> None:
    assert shuffled_texts({}) == {}
    assert shuffled_texts({"a": "x"}) == {}
    assert shuffled_texts({"a": "x", "b": "x"}) == {}
    assert shuffled_texts({"a": "x", "b": ""}) == {"b": "x"}
    assert shuffled_texts({"a": "x", "b": "y"}) == {"a": "y", "b": "x"}


def test_modes_are_those_that_network_and_texts_allow() -> None:
    two = references("left", "right", "")
    prompts = text_prompts(two, True)
    assert list(prompts) == ["on", "off", "shuffled"]
    assert list(prompts["on"].values()) == ["left", "right", ""]
    assert set(prompts["off"].values()) == {""}
    assert list(prompts["shuffled"].values())[:2] == ["right", "left"]
    assert list(text_prompts(two, False)) == ["off"]
    assert list(text_prompts(references("", ""), True)) == ["off"]
    assert list(text_prompts(references("x", "x", ""), True)) == ["on", "off"]
    assert text_prompts([], True) == {"off": {}}


def test_fewer_modes_can_be_chosen() -> None:
    two = references("left", "right")
    assert list(text_prompts(two, True, ["shuffled", "on"])) == ["on", "shuffled"]
    assert list(text_prompts(two, True, "off")) == ["off"]
    assert list(text_prompts(two, False, ["on"])) == ["off"], "what the network cannot do gives way"
    assert list(text_prompts(references("x"), True, ["shuffled"])) == ["off"]


@pytest.mark.parametrize("wrong", [True, False, "On", "", None, 1])
def test_what_is_no_mode_is_refused_with_a_hint_at_yaml(wrong: Any) -> None:
    with pytest.raises(ValueError, match="text_modes: .*'on', 'off' or 'shuffled'.*YAML"):
        text_prompts(references("x"), True, ["off", wrong])


# --- an evaluation ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reader_weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("reader") / "reader.pt"
    torch.save(TextReader(12).state_dict(), path)
    return str(path)


@pytest.fixture
def films(phantoms: dict[str, Path], tmp_path: Path) -> Path:
    """Three X-rays whose texts name the left, the right and both sides."""
    shutil.copytree(phantoms["X-ray"].parent, tmp_path / "data")
    datalist = tmp_path / "data" / "datalist.json"
    content = json.loads(datalist.read_text())
    for entry, text in zip(content["test"], ("$left", "@right", "%left and right"), strict=True):
        entry["text"] = text
    datalist.write_text(json.dumps(content))
    return datalist


@pytest.fixture
def evaluate(
    workflow: Callable[..., ConfigWorkflow], reader_weights: str, tmp_path: Path
) -> Callable[..., tuple[dict[str, Any], list[dict[str, str]]]]:
    def run(datalist: Path, **options: Any) -> tuple[dict[str, Any], list[dict[str, str]]]:
        reader = {"network_def": READER, "weights": reader_weights}
        output = tmp_path / "out"
        workflow(
            "evaluate.yaml", datalist=str(datalist), output_dir=str(output), **{**reader, **options}
        ).run()
        with (output / "metrics.csv").open() as stream:
            rows = list(csv.DictReader(stream))
        return json.loads((output / "summary.json").read_text()), rows

    return run


def test_one_pass_scores_every_mode(
    films: Path, evaluate: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    load = LoadCased.__call__
    monkeypatch.setattr(
        LoadCased, "__call__", lambda self, data: read.append(data["image"]) or load(self, data)
    )
    TextReader.told.clear()
    summary, rows = evaluate(films, write_results=True)
    assert len(read) == 3, "an image is read and preprocessed once, however many modes there are"
    own = ["$left", "@right", "%left and right"]
    assert TextReader.told[0::3] == own and TextReader.told[1::3] == ["", "", ""]
    shuffled = TextReader.told[2::3]
    assert all(text in own and text != mine for text, mine in zip(shuffled, own, strict=True))

    assert (summary["split"], summary["cases"]) == ("test", 3)
    assert list(summary["text"]) == ["on", "off", "shuffled"]
    assert [(row["case"], row["text"]) for row in rows] == [
        (f"test_000{number}", mode) for number in (20, 21, 22) for mode in ("on", "off", "shuffled")
    ]
    painted = {(row["case"], row["text"]): int(row["predicted"]) for row in rows}
    half, whole = 96 * 48, 96 * 96
    assert [painted[f"test_000{number}", "on"] for number in (20, 21, 22)] == [half, half, whole]
    assert [painted[f"test_000{number}", "off"] for number in (20, 21, 22)] == [0, 0, 0]
    for number, text in zip((20, 21, 22), shuffled, strict=True):
        assert painted[f"test_000{number}", "shuffled"] == (whole if text == own[2] else half)

    for mode, figures in summary["text"].items():
        dice = [float(row["dice"]) for row in rows if row["text"] == mode and int(row["truth"])]
        assert figures["cases"] == 3 and figures["dice"] == pytest.approx(sum(dice) / len(dice), abs=1e-3)
        assert {"dice_ci95", "dice_global", "iou", "per_label"} <= figures.keys()
    assert summary["text"]["off"]["dice"] == 0 < summary["text"]["on"]["dice"]
    reports = [json.loads(path.read_text()) for path in sorted((tmp_path / "out").glob("*/report.json"))]
    assert [report["prompt"] for report in reports] == own, "what is written is of the case's own text"
    assert all(report["found"] for report in reports)


def test_the_modes_are_those_of_runs_of_their_own(films: Path, evaluate: Callable[..., Any]) -> None:
    together, rows = evaluate(films)
    for mode in ("on", "off", "shuffled"):
        alone, rows_alone = evaluate(films, text_modes=[mode])
        assert list(alone["text"]) == [mode]
        assert alone["text"][mode] == together["text"][mode]
        assert rows_alone == [row for row in rows if row["text"] == mode]
        assert (alone["uncertainty"] == together["uncertainty"]) == (mode == "on")


def test_a_network_that_reads_no_text_is_evaluated_once(
    films: Path, evaluate: Callable[..., Any], tiny: Any, workflow: Callable[..., ConfigWorkflow]
) -> None:
    network = workflow("inference.yaml").parser.get("network_def")
    summary, rows = evaluate(films, network_def=network, weights=str(tiny.random))
    assert list(summary["text"]) == ["off"] and {row["text"] for row in rows} == {"off"} and len(rows) == 3


def test_a_list_of_names_is_evaluated_with_the_texts_of_its_entries(
    films: Path, evaluate: Callable[..., Any]
) -> None:
    content = json.loads(films.read_text())
    content["few_shot_test"] = [content["test"][number]["image"] for number in (2, 0)]
    films.write_text(json.dumps(content))
    summary, rows = evaluate(films, split="few_shot_test")
    assert (summary["split"], summary["cases"]) == ("few_shot_test", 2)
    on = [(row["case"], int(row["predicted"])) for row in rows if row["text"] == "on"]
    assert on == [("test_00022", 96 * 96), ("test_00020", 96 * 48)]


def test_another_wording_can_be_chosen(films: Path, evaluate: Callable[..., Any]) -> None:
    content = json.loads(films.read_text())
    for entry in content["test"]:
        entry["text_six_zones"] = "nothing"
    content["test"][0]["text_six_zones"] = "left and right"
    films.write_text(json.dumps(content))
    _, rows = evaluate(films, text_key="text_six_zones")
    assert [int(row["predicted"]) for row in rows if row["text"] == "on"] == [96 * 96, 0, 0]
    assert [int(row["predicted"]) for row in rows if row["text"] == "shuffled"] == [0, 96 * 96, 96 * 96]


def test_a_truth_that_cannot_be_used_leaves_its_case_out_of_every_mode(
    films: Path, workflow: Callable[..., ConfigWorkflow], reader_weights: str, tmp_path: Path
) -> None:
    (films.parent / json.loads(films.read_text())["test"][1]["label"]).write_bytes(b"no picture")
    options = {"network_def": READER, "weights": reader_weights, "output_dir": str(tmp_path / "out")}
    with pytest.raises(SystemExit):
        workflow("evaluate.yaml", datalist=str(films), **options).run()
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert {mode: figures["cases"] for mode, figures in summary["text"].items()} == {
        "on": 2,
        "off": 2,
        "shuffled": 2,
    }


def test_bare_words_of_yaml_are_refused_before_anything_is_segmented(
    commands: Any, films: Path, tiny: Any, tmp_path: Path
) -> None:
    (tmp_path / "modes.yaml").write_text("text_modes: [on, off]\n")
    files = f"['configs/inference.yaml','configs/evaluate.yaml','{tiny.config}','{tmp_path / 'modes.yaml'}']"
    places = ("--datalist", films, "--output_dir", tmp_path / "out", "--weights", tiny.random)
    done = commands("monai.bundle", "run", "--config_file", files, *places)
    assert done.code == 2
    assert "text_modes: True is none" in done.stderr and "quotes" in done.stderr
    assert not list((tmp_path / "out").glob("*/report.json"))


def test_no_text_is_acted_upon(films: Path, evaluate: Callable[..., Any], tmp_path: Path) -> None:
    content = json.loads(films.read_text())
    (tmp_path / "data" / "many").mkdir()
    entries = []
    for number, text in enumerate(TEXTS):
        names = {key: f"many/{key}_{number:02d}.png" for key in ("image", "label")}
        for key, name in names.items():
            shutil.copy(films.parent / content["test"][0][key], films.parent / name)
        entries.append({**names, "text": text})
    films.write_text(json.dumps({**content, "test": entries}))
    TextReader.told.clear()
    summary, _ = evaluate(films, text_modes=["on", "shuffled"])
    assert summary["cases"] == len(TEXTS)
    assert TextReader.told[0::2] == TEXTS
    assert all(text in TEXTS for text in TextReader.told[1::2])
    assert not Path("evaluated").exists()
