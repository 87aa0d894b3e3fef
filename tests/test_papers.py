"""Each paper is a configuration: named behind the others it trains, evaluates and segments by the same commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from bundle.learning import ViewEncoder
from bundle.networks import GuidedLayout, GuidedUNet, save_guided_unet
from tests.support.fake_segmenter import TEXTS

ROOT = Path(__file__).resolve().parents[1]
PAPERS: dict[str, dict[str, Any]] = {
    "medconddiff": {"image_prior": "b0", "denoiser_width": 16, "upsample_widths": [8, 8], "steps": 2},
    "lcpdn": {"fusion_width": 16},
    "fasttextdiff": {"attention_width": 16, "attention_heads": 2, "attention_head_width": 8},
}
TINY = {
    "xray#size": 64,
    "image_size": 64,
    "tile_size": 64,
    "progress": False,
    "device": "$torch.device('cpu')",
}
TRAINING = {
    "images_per_epoch": 6,
    "batch_size": 2,
    "epochs": 1,
    "schedule_epochs": 1,
    "val_interval": 1,
    "bfloat16": False,
    "num_workers": 0,
}


@pytest.fixture
def reports(phantoms: dict[str, Path], tmp_path: Path) -> Path:
    """X-ray phantoms whose reports hold what a careless program would act upon."""
    folder = phantoms["X-ray"].parent
    content = json.loads(phantoms["X-ray"].read_text())
    number = 0
    for split in ("training", "validation", "test"):
        for entry in content[split]:
            entry["image"], entry["label"] = (str(folder / entry[key]) for key in ("image", "label"))
            entry["text"] = ["", "word " * 8192, *TEXTS[:-1]][number]
            number += 1
    path = tmp_path / "datalist.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("paper", PAPERS)
def test_a_paper_trains_evaluates_and_segments(
    paper: str, commands: Any, reports: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    layout = GuidedLayout(8, (1, 1, 1, 1, 1), 1, (16,), 8, out_channels=3, norm_groups=4)
    save_guided_unet(GuidedUNet(layout).state_dict(), layout, tmp_path / "image_ddpm")
    sizes = tmp_path / "sizes.yaml"
    ViewEncoder("compact").save_encoder(tmp_path / "vision")
    encoders = {"image_ddpm": str(tmp_path / "image_ddpm"), "vision_encoder": str(tmp_path / "vision")}
    sizes.write_text(yaml.safe_dump({**TINY, **PAPERS[paper], **encoders}))

    def run(config: str, *options: object) -> None:
        names = dict.fromkeys(("inference", config, paper))
        files = str([*(f"configs/{name}.yaml" for name in names), str(sizes)])
        done = commands("monai.bundle", "run", "--config_file", files, *options)
        assert done.code == 0, done.stderr

    training = [f"--{name}={value}" for name, value in TRAINING.items()]
    run("train", "--datalist", reports, "--output_dir", tmp_path / "training", *training)
    weights = tmp_path / "training" / "model.pt"
    run(
        "evaluate", "--datalist", reports, "--split", "test", "--output_dir", tmp_path / "evaluation",
        "--weights", weights,
    )  # fmt: skip
    summary = json.loads((tmp_path / "evaluation" / "summary.json").read_text())
    assert summary["cases"] == 3
    assert set(summary["text"]) == ({"off"} if paper == "medconddiff" else {"on", "off", "shuffled"})
    run(
        "inference",
        "--input",
        reports,
        "--split",
        "test",
        "--output_dir",
        tmp_path / "out",
        "--weights",
        weights,
    )
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert [case["status"] for case in record["cases"]] == ["done"] * 3
    texts = [entry["text"] for entry in json.loads(reports.read_text())["test"]]
    told = [
        json.loads((tmp_path / "out" / case["id"] / "report.json").read_text()) for case in record["cases"]
    ]
    assert sorted(report["prompt"] for report in told) == sorted(texts)
    unread = [any("reads no text" in warning for warning in report["warnings"]) for report in told]
    assert unread == [paper == "medconddiff"] * 3
    assert not (ROOT / "evaluated").exists()
