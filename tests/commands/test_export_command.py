"""`python -m bundle export`, and the whole way of a case with what it wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

import bundle
from bundle.commands.main import main
from bundle.exporting.folder import read_export
from bundle.networks import file_sha256, image_prior

pytest.importorskip("onnxscript", reason="the extra 'export' is not installed")
pytest.importorskip("onnxruntime", reason="the extra 'export' is not installed")


def run(*arguments: object) -> int:
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)


def test_incomplete_weights_are_refused_and_leave_nothing(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = torch.load(tiny.random, weights_only=True)
    state.pop("denoiser.mask_stem.weight")
    torch.save(state, tmp_path / "part.pt")
    options = ["--format", "onnx", "--config", tiny.config, "--output", tmp_path / "graphs"]
    assert run("export", *options, "--weights", tmp_path / "part.pt") == 2
    assert "1 tensors are missing, first denoiser.mask_stem.weight" in capsys.readouterr().err
    assert not (tmp_path / "graphs").exists()


def test_a_folder_with_other_things_in_it_is_refused(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").touch()
    options = ["--format", "onnx", "--config", tiny.config, "--weights", tiny.random]
    assert run("export", *options, "--output", tmp_path) == 2
    assert "holds something that is no export; give another --output" in capsys.readouterr().err


def test_segmenting_with_what_is_no_export_starts_nothing(
    phantoms: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["segment", phantoms["X-ray"], "--output", tmp_path / "out", "--export", tmp_path]
    assert run(*options) == 2
    assert "export.json: cannot be read; give a folder that `tpseg export` wrote" in (capsys.readouterr().err)
    assert run(*options, "--weights", tmp_path / "model.pt") == 2
    assert "not allowed with argument" in capsys.readouterr().err


def _mask(folder: Path) -> np.ndarray:
    volume = folder / "mask.nii.gz"
    return np.asarray(nibabel.load(volume).dataobj if volume.exists() else Image.open(folder / "mask.png"))


@pytest.mark.slow
def test_the_graphs_segment_as_the_network_does(
    tiny: Any,
    phantoms: dict[str, Path],
    segment: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the PVT v2 of the configuration at a depth of 1: tracing takes minutes otherwise."""
    small = {**image_prior.PVT_V2_VARIANTS["b0_slim"], "depths": [1, 1, 1, 1]}
    monkeypatch.setitem(image_prior.PVT_V2_VARIANTS, "b0_slim", small)
    state = torch.load(tiny.trained, weights_only=True)
    kept = {key: value for key, value in state.items() if ".blocks.1." not in key}
    generator = torch.Generator().manual_seed(0)
    for key, value in kept.items():
        if key.startswith("text_conditioning.leave"):
            kept[key] = 0.05 * torch.randn(value.shape, generator=generator)
    weights, graphs = tmp_path / "model.pt", tmp_path / "graphs"
    torch.save(kept, weights)
    network = ["--config", tiny.config, "--weights", weights]
    assert run("export", "--format", "onnx", *network, "--output", graphs) == 0
    content = read_export(graphs).content
    assert content["weights"]["sha256"] == file_sha256(weights)
    assert content["versions"]["bundle"] == bundle.__version__
    # the settings of the small network, which its configuration has and configs/inference.yaml has not
    assert (
        content["settings"]["ct"]["spacing"] == [8.0, 8.0, 20.0] and content["settings"]["xray"]["size"] == 64
    )

    cases = [phantoms["CT"], phantoms["H&E"], "--split", "test"]
    assert segment(*cases, "--output", tmp_path / "eager", weights=weights) == 0
    assert run("segment", *cases, "--export", graphs, "--output", tmp_path / "onnx") == 0
    done = json.loads((tmp_path / "onnx" / "run.json").read_text(encoding="utf-8"))
    assert done["weights_sha256"] == file_sha256(graphs / "export.json")
    shown = 0
    for case in done["cases"]:
        eager, exported = (_mask(tmp_path / way / case["id"]) for way in ("eager", "onnx"))
        shown += int((eager > 0).sum())
        both = (eager == exported) & (eager > 0)
        assert 200.0 * both.sum() >= 99.9 * ((eager > 0).sum() + (exported > 0).sum())
    assert len(done["cases"]) == 6 and shown > 1000
    # through MONAI's own configuration, in another process for each case, and with a setting overridden
    assert run("segment", *cases, "--export", graphs, "--jobs", 2, "--output", tmp_path / "jobs") == 0
    for case in done["cases"]:
        assert (_mask(tmp_path / "jobs" / case["id"]) == _mask(tmp_path / "onnx" / case["id"])).all()
    changed = [*cases, "--export", graphs, "--seed", 1, "--output", tmp_path / "onnx", "--resume"]
    assert run(*["segment", *changed]) == 2
