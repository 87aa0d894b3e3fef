"""What every command owes its user: exit codes, one sentence where nothing could start, and no surprise from names."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigWorkflow

from bundle.cases import CaseError
from bundle.cases.errors import root_cause
from bundle.commands.command_line import check_overrides, sentence_for
from bundle.commands.main import parser
from bundle.networks import WeightsError

ROOT = Path(__file__).resolve().parents[2]
INFERENCE = ["--config_file", str(ROOT / "configs" / "inference.yaml")]


@pytest.fixture(scope="module")
def film(phantoms: dict[str, Path]) -> Path:
    return next((phantoms["X-ray"].parent / "images").glob("test_*.png"))


def files_of(output: Path) -> dict[str, bytes]:
    names = ("mask.*", "probability.*", "uncertainty.*")
    return {
        str(path.relative_to(output)): path.read_bytes()
        for name in names
        for path in output.glob(f"*/{name}")
    }


def only_sentence(stderr: str) -> str:
    """The one line that an exit code of 2 comes with."""
    lines = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, stderr
    assert "Traceback" not in stderr
    sentence = lines[0].removeprefix("error: ")
    assert len(sentence) > 20 and sentence.endswith((".", "?")), sentence
    return sentence


@pytest.mark.parametrize(("given", "meant"), [("false", "False"), ("true", "True"), ("null", "None")])
def test_words_that_only_yaml_knows_are_refused(
    given: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        check_overrides([*INFERENCE, "--geojson", given])
    assert f"--geojson {given}: would be taken for a word; write {meant}" in capsys.readouterr().err
    check_overrides([*INFERENCE, f"--geojson={meant}"])


# --- both commands ---------------------------------------------------------------------------------------


def test_both_commands_give_the_same_bytes(
    commands: Any, tiny: Any, phantoms: dict[str, Path], segment: Callable[..., int], tmp_path: Path
) -> None:
    for modality, name in (("CT", "ct"), ("H&E", "histology")):
        datalist = phantoms[modality]
        done = commands(
            "monai.bundle",
            "run",
            "--config_file",
            f"['configs/inference.yaml','{tiny.config}']",
            *("--input", datalist, "--split", "test", "--weights", tiny.random),
            *("--output_dir", tmp_path / "run" / name),
        )
        assert done.code == 0, done.stderr
        assert "0 failed" in done.stdout
        assert segment(datalist, "--split", "test", "--output", tmp_path / "segment" / name) == 0
        ours, theirs = (files_of(tmp_path / command / name) for command in ("segment", "run"))
        assert len(ours) == 3 * 3 and ours == theirs


def test_a_newly_started_command_does_the_same(
    commands: Any, tiny: Any, film: Path, segment: Any, tmp_path: Path
) -> None:
    network = ["--config", tiny.config, "--weights", tiny.random]
    done = commands.fresh("bundle", "segment", film, "--output", tmp_path / "fresh", *network)
    assert done.code == 0, done.stderr
    assert segment(film, "--output", tmp_path / "here") == 0
    assert files_of(tmp_path / "fresh") == files_of(tmp_path / "here") != {}


# --- names and prompts are never evaluated ---------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "$1+1.png",
        "@input.png",
        "%configs.png",
        "$__import__('os').mkdir('evaluated').png",
        "two words, #1 [a].png",
        "-.png",
    ],
)
def test_paths_are_never_evaluated(
    name: str, film: Path, segment: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(film, name)
    output = "$out, #1" if name != "-.png" else "@out dir"
    path = name if not name.startswith("-") else f"./{name}"
    assert segment(path, "--output", output) == 0
    record = json.loads(Path(output, "run.json").read_text())
    (entry,) = record["cases"]
    assert entry["status"] == "done" and entry["input"] == name
    assert all(Path(output, file).is_file() for file in entry["files"])
    assert sorted(os.listdir()) == sorted([name, output])


PROMPTS = [
    "$__import__('os').mkdir('evaluated')",
    "@seed",
    "%configs/inference.yaml::seed",
    'Bilateral infection, #2, upper left lung: "dense" $5 @once',
    "{'a': 1}, [2]",
]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_prompts_are_never_evaluated(
    prompt: str, film: Path, segment: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(prompt + "\n")
    Path("each.json").write_text(json.dumps({film.stem: prompt}))
    options = {
        "a": ["--prompt", prompt],
        "b": ["--prompt-file", "text.txt"],
        "c": ["--prompt-file", "each.json"],
    }
    for name, option in options.items():
        assert segment(film, "--output", name, *option) == 0
        report = json.loads(Path(name, film.stem, "report.json").read_text())
        assert report["prompt"] == prompt
    assert sorted(os.listdir()) == ["a", "b", "c", "each.json", "text.txt"]


def test_a_prompt_file_reaches_the_bundle_command_as_it_is(
    commands: Any, tiny: Any, film: Path, tmp_path: Path
) -> None:
    (tmp_path / "prompt.txt").write_text(PROMPTS[0])
    done = commands(
        "monai.bundle",
        "run",
        "--config_file",
        f"['configs/inference.yaml','{tiny.config}']",
        *("--input", film, "--output_dir", tmp_path / "out", "--weights", tiny.random),
        *("--prompt_file", tmp_path / "prompt.txt"),
    )
    assert done.code == 0, done.stderr
    assert json.loads((tmp_path / "out" / film.stem / "report.json").read_text())["prompt"] == PROMPTS[0]
    assert not (ROOT / "evaluated").exists()


# --- overrides -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--stepss", "3"], "--steps"),
        (["--stepss=3"], "--steps"),
        (["--inpt", "x"], "--input"),
        (["--sampling#stepss", "3"], "sampling"),
        (["--network_def::denoiser::widht", "3"], "widht"),
        (["--batch-sizes", "3"], "--batch_size"),
        (["--ct_window", "[0,1]"], "did you mean --ct#window?"),
        (["--xray_sides=patient"], "did you mean --xray#sides?"),
        (["--photometric", "MONOCHROME1"], "did you mean --xray#photometric?"),
        (["--remove_fragments", "False"], "did you mean --ct#remove_fragments?"),
    ],
)
def test_unknown_overrides_are_refused_with_a_hint(
    arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        check_overrides(["run", *INFERENCE, *arguments])
    assert stop.value.code == 2
    sentence = capsys.readouterr().err
    assert "unknown override --" in sentence and hint in sentence and sentence.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--steps", "3", "--input", "x", "--output_dir=y"],
        ["--sampling#steps", "3"],
        ["--ct#window", "[-160,240]"],
        ["--network_def::denoiser::width", "3"],
        ["--network_def#schedule#shift=-3.5"],
        ["--seed", "-1", "--logging_file", "configs/logging.conf", "--meta_file", "configs/metadata.json"],
    ],
)
def test_known_overrides_pass(arguments: list[str]) -> None:
    check_overrides(["run", *INFERENCE, *arguments])


def test_every_tunable_id_of_every_configuration_is_known() -> None:
    for name in ("train", "evaluate", "inference"):
        files = [str(ROOT / "configs" / f"{one}.yaml") for one in dict.fromkeys(("inference", name))]
        config = ConfigWorkflow(config_file=files, logging_file=False, workflow_type="train").parser.config
        for key in config:
            check_overrides(["run", "--config_file", str(files), f"--{key}", "x"])


# --- one sentence for an error ---------------------------------------------------------------------------


def wrapped(*errors: BaseException) -> BaseException:
    """As if each error had led to the next."""
    for cause, error in zip(errors, errors[1:], strict=False):
        error.__cause__ = cause
    return errors[-1]


def test_the_sentence_is_that_of_the_error_that_was_written_for_users() -> None:
    missing = FileNotFoundError(2, "No such file")
    ours = CaseError("a.nii.gz", "does not exist", "check the path")
    assert (
        sentence_for(wrapped(missing, ours, RuntimeError("monai")))
        == "a.nii.gz: does not exist; check the path."
    )
    weights = WeightsError("m.pt: is damaged; copy it again.")
    assert (
        root_cause(wrapped(ValueError("zip"), weights, RuntimeError("x"), RuntimeError("y")), WeightsError)
        is weights
    )
    assert (
        sentence_for(wrapped(ValueError("steps must\n be  1"), RuntimeError("monai"))) == "steps must be 1."
    )
    assert sentence_for(KeyError()) == "KeyError."


# --- `python -m bundle` ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["segment"],
        ["segment", "a.png"],
        ["segment", "a.png", "--output", "o", "--stepss", "3"],
        ["segment", "a.png", "--output", "o", "--steps", "few"],
        ["segment", "a.png", "--output", "o", "--modality", "MR"],
        ["segment", "a.png", "--output", "o", "--prompt", "x", "--prompt-file", "y"],
    ],
)
def test_arguments_that_make_no_sense_end_with_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        parser().parse_args(arguments)
    assert stop.value.code == 2
    assert "error: " in capsys.readouterr().err


def cut(tmp_path: Path, tiny: Any) -> Path:
    """Weights without one of their tensors."""
    state = torch.load(tiny.random, weights_only=True)
    del state["denoiser.head.0.bias"]
    torch.save(state, tmp_path / "cut.pt")
    return tmp_path / "cut.pt"


def malformed(tmp_path: Path) -> Path:
    (tmp_path / "list.json").write_text('{"training": [{"image": "a.png"}')
    return tmp_path / "list.json"


def blocked(tmp_path: Path) -> Path:
    """A file where a folder would have to be; root may write anywhere else."""
    (tmp_path / "file").write_text("")
    return tmp_path / "file" / "out"


def empty(tmp_path: Path) -> Path:
    (tmp_path / "nothing").mkdir()
    return tmp_path / "nothing"


def test_nothing_that_cannot_start_starts_segment(
    tiny: Any, film: Path, segment: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "nonsense.pt").write_bytes(b"nonsense")
    out = ["--output", tmp_path / "out"]
    refused: list[tuple[str, list[object], dict[str, Path]]] = [
        ("missing.png", [tmp_path / "missing.png", *out], {}),
        ("nothing", [empty(tmp_path), *out], {}),
        ("list.json", [malformed(tmp_path), *out], {}),
        ("cut.pt", [film, *out], {"weights": cut(tmp_path, tiny)}),
        ("nonsense.pt", [film, *out], {"weights": tmp_path / "nonsense.pt"}),
        ("nowhere.pt", [film, *out], {"weights": tmp_path / "nowhere.pt"}),
        (str(tmp_path / "file"), [film, "--output", blocked(tmp_path)], {}),
        ("/proc/none", [film, "--output", "/proc/none/out"], {}),
        ("steps", [film, *out, "--steps", 0], {}),
        ("members", [film, *out, "--members", -1], {}),
        ("batch_size", [film, *out, "--batch-size", 0], {}),
        ("prompt.txt", [film, *out, "--prompt-file", tmp_path / "prompt.txt"], {}),
        ("nonsense", [film, *out, "--device", "nonsense"], {}),
        ("device: cuda:97 is not there", [film, *out, "--device", "cuda:97"], {}),
        ("give another folder.", [film, "--output", blocked(tmp_path)], {}),
        ("jobs must be a whole number of at least 1, not 0", [film, *out, "--jobs", 0], {}),
        ("none.yaml", [film, *out, "--config", tmp_path / "none.yaml"], {}),
    ]
    for named, arguments, weights in refused:
        code = segment(*arguments, **weights)
        output = capfd.readouterr()
        assert code == 2, (named, output)
        lines = [line for line in output.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 and named in lines[0], (named, output.err)
        assert "Traceback" not in output.err
        assert not list(tmp_path.glob("out/*/mask.*")), named


def test_nothing_that_cannot_start_starts_the_bundle_command(
    commands: Any, tiny: Any, phantoms: dict[str, Path], film: Path, tmp_path: Path
) -> None:
    inference = [
        "run",
        "--config_file",
        f"['configs/inference.yaml','{tiny.config}']",
        "--weights",
        tiny.random,
    ]
    given = [*inference, "--input", film, "--output_dir", tmp_path / "out"]
    train = [
        "run",
        "--config_file",
        f"['configs/inference.yaml','configs/train.yaml','{tiny.config}']",
        "--output_dir",
        tmp_path / "training",
    ]
    refused: list[tuple[str, list[object]]] = [
        ("--steps?", [*given, "--stepss", 3]),
        ("sampling", [*given, "--sampling#stepss", 3]),
        ("input", [*inference, "--output_dir", tmp_path / "out"]),
        ("missing.png", [*inference, "--input", tmp_path / "missing.png", "--output_dir", tmp_path / "out"]),
        ("nothing", [*inference, "--input", empty(tmp_path), "--output_dir", tmp_path / "out"]),
        ("list.json", [*inference, "--input", malformed(tmp_path), "--output_dir", tmp_path / "out"]),
        ("cut.pt", [*given, "--weights", cut(tmp_path, tiny)]),
        ("nowhere.pt", [*given, "--weights", tmp_path / "nowhere.pt"]),
        (str(tmp_path / "file"), [*inference, "--input", film, "--output_dir", blocked(tmp_path)]),
        ("/proc/none", [*inference, "--input", film, "--output_dir", "/proc/none/out"]),
        ("give another folder.", [*inference, "--input", film, "--output_dir", "/proc/none/out"]),
        ("device: cuda:97 is not there", [*given, "--device", "cuda:97"]),
        ("steps", [*given, "--steps", 0]),
        ("modality", [*given, "--modality", "MR"]),
        ("sampler", [*given, "--sampler", "fast"]),
        ("consensus", [*given, "--consensus", "loud"]),
        ("--datalist", train),
        ("has no split 'night'", [*train, "--datalist", phantoms["H&E"], "--split", "night"]),
        ("latest.pt", [*train, "--datalist", phantoms["H&E"], "--resume", False, "--image_size", 64]),
    ]
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "latest.pt").write_bytes(b"another training")
    for named, arguments in refused:
        done = commands("monai.bundle", *arguments)
        assert done.code == 2, (named, done)
        assert named in only_sentence(done.stderr)
    assert not list(tmp_path.glob("out/*/mask.*"))
    assert (tmp_path / "training" / "latest.pt").read_bytes() == b"another training"
