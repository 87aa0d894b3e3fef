"""Options follow from the configuration files: an option added there is offered, and reaches the configuration."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import bundle
from bundle.commands.main import main, parser
from bundle.commands.options import INFERENCE, given_settings, settings_in
from bundle.root import CONFIGS
from bundle.settings import settings_of
from tests.conftest import ROOT

SEGMENT = ["segment", "a.png", "--output", "out"]


def given(*options: str) -> dict[str, Any]:
    argv = [*SEGMENT, *options]
    return given_settings(parser(argv).parse_args(argv))


def test_help_needs_neither_torch_nor_readers_of_images() -> None:
    code = """
import sys
from bundle.commands.main import main
try:
    main(sys.argv[1:])
except SystemExit:
    print(sorted({"torch", "monai", "nibabel", "pydicom", "transformers", "itk"} & set(sys.modules)))
"""
    for argv in (["--help"], ["segment", "--help"], ["train"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *argv], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert done.stdout.endswith("[]\n"), argv


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"tpseg {bundle.__version__}\n"


def test_a_new_option_is_offered_with_its_comment_and_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from bundle.commands.options import workflow_of

    config = tmp_path / "more.yaml"
    config.write_text(
        "sharpness: 0.5            # of edges, from 0 to 1\nkind: soft  # soft | hard; of edges\n"
    )
    with pytest.raises(SystemExit, match="0"):
        main([*SEGMENT, "--config", str(config), "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert (
        "--sharpness X of edges, from 0 to 1; default: 0.5" in shown
        and "--kind {soft,hard} of edges; default: soft" in shown
    )
    chosen = given("--config", str(config), "--sharpness", "0.7")
    assert chosen == {"sharpness": 0.7}
    settings = settings_of(workflow_of([INFERENCE, config], "inference", chosen).parser)
    assert settings["sharpness"] == 0.7 and settings["kind"] == "soft"
    with pytest.raises(SystemExit, match="2"):
        given("--config", str(config), "--kind", "loud")


def test_options_have_the_type_of_their_default() -> None:
    assert given(
        "--steps", "3", "--tile-overlap", "0.5", "--ct-window", "[-160,240]", "--no-xray-mirrored"
    ) == {
        "steps": 3,
        "tile_overlap": 0.5,
        "ct#window": [-160, 240],
        "xray#mirrored": False,
    }
    assert given(
        "--slide-mpp", "0.25", "--ct-percentiles", "[0.5, 99.5]", "--split", "test", "--dicom-seg"
    ) == {
        "slide_mpp": 0.25,
        "ct#percentiles": [0.5, 99.5],
        "split": "test",
        "dicom_seg": True,
    }
    assert given("--rtstruct", "--photometric", "MONOCHROME1") == {
        "dicom_rtstruct": True,
        "xray#photometric": "MONOCHROME1",
    }
    assert given() == {}


@pytest.mark.parametrize(
    "options",
    [
        ["--split", "$1+1"],
        ["--text-key", "@seed"],
        ["--text-encoder", "%x.yaml::y"],
        ["--ct-window", "['$1', 2]"],
        ["--ct-window", "[1"],
        ["--orientation", "upright"],
    ],
)
def test_what_would_be_evaluated_or_is_not_known_is_refused(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        given(*options)
    assert f"argument {options[0]}" in capsys.readouterr().err


def test_every_setting_of_the_configurations_is_explained() -> None:
    """Its comment is the help; only names that say it all need none."""
    files = [INFERENCE, CONFIGS / "train.yaml", CONFIGS / "evaluate.yaml"]
    silent = {setting.id for setting in settings_in(files) if not setting.about}
    assert silent <= {
        *(
            "read_text",
            "epochs",
            "batch_size",
            "learning_rate",
            "weight_decay",
            "warmup_steps",
            "num_workers",
        ),
        *("max_gradient_norm", "dice_weight", "ce_weight", "validation_split", "resume"),
        *("xray#temperature", "histology#temperature"),
    }
    assert {"image_size", "schedule_epochs", "ct#window"} <= {setting.id for setting in settings_in(files)}


def test_training_and_evaluation_put_their_configurations_together(
    phantoms: dict[str, Path], tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = ["--config", str(tiny.config), "--device", "cpu", "--datalist", str(phantoms["X-ray"])]
    small = [
        "--image-size",
        "64",
        "--images-per-epoch",
        "4",
        "--batch-size",
        "2",
        "--epochs",
        "1",
        "--num-workers",
        "0",
    ]
    output = tmp_path / "training"
    assert main(["train", "--set", "xray_covid", *network, *small, "--output", str(output)]) == 0
    assert (output / "model.pt").is_file() and (output / "latest.pt").is_file()
    weights = ["--weights", str(output / "model.pt")]
    assert (
        main(
            ["evaluate", *network, *weights, "--text-modes", "['off']", "--output", str(tmp_path / "figures")]
        )
        == 0
    )
    assert (tmp_path / "figures" / "summary.json").is_file()
    capsys.readouterr()
    changed = ["--xray-percentiles", "[1.0, 99.0]", "--output", str(output)]
    assert main(["train", "--set", "xray_covid", *network, *small, *changed]) == 2
    assert "was trained with xray#percentiles [0.5, 99.5], not [1.0, 99.0]; go on with xray#percentiles" in (
        capsys.readouterr().err
    )
    assert main(["evaluate", *network, *weights, "--resume", "--output", str(tmp_path / "figures")]) == 2
    assert "resume: every case counts" in capsys.readouterr().err
