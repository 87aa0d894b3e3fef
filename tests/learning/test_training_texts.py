"""Texts reach the network in training, with and without noise, and what it is told changes no other draw."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigWorkflow
from torch import Tensor, nn

from bundle.diffusion import cosine_log_snr
from bundle.diffusion.sampling import Sampling
from bundle.learning import LogitsInferer, MaskTarget, NoisedMaskInferer
from bundle.networks.segmenter import IMPOSSIBLE
from tests.support.fake_segmenter import READER, TEXTS, TextReader


class Recorder(nn.Module):
    """Keeps what it is called with."""

    mask_stride = 1
    learns_names = False
    sampling = Sampling()

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 2, 1)
        self.asked: dict[str, Any] = {}

    def schedule(self, times: Tensor) -> Tensor:
        return cosine_log_snr(times)

    def forward(self, image: Tensor, **asked: Any) -> Tensor:
        self.asked = asked
        logits: Tensor = self.layer(image)
        return logits


def target(batch: int = 2) -> MaskTarget:
    known = torch.ones(batch, 2, dtype=torch.bool)
    return MaskTarget(torch.zeros(batch, 8, 8, dtype=torch.long), known, known)


@pytest.mark.parametrize("bfloat16", [False, True])
def test_logits_of_a_network_without_noise(bfloat16: bool) -> None:
    network, truth, image = Recorder(), target(), torch.rand(2, 3, 8, 8)
    logits = LogitsInferer(bfloat16)(image, network, target=truth, prompts=["a", "b"])
    assert logits.dtype == torch.float32 and logits.shape == (2, 2, 8, 8)
    assert network.asked == {"prompts": ["a", "b"], "possible": truth.possible, "logits": True}
    assert torch.equal(logits, network.layer(image)) != bfloat16
    torch.testing.assert_close(logits, network.layer(image), atol=2e-2, rtol=2e-2)


def test_the_noised_step_passes_texts_on() -> None:
    network, truth, image = Recorder(), target(), torch.rand(2, 3, 8, 8)
    NoisedMaskInferer()(image, network, target=truth, noise=torch.randn(2, 2, 8, 8), prompts=["a", ""])
    assert network.asked["prompts"] == ["a", ""] and network.asked["possible"] is truth.possible
    x_t, log_snr = network.asked["noisy"]
    assert x_t.shape == (2, 2, 8, 8) and log_snr.shape == (2,)
    with pytest.raises(ValueError, match="draw_noise"):
        NoisedMaskInferer()(image, network, target=truth)


def test_the_reader_takes_no_class_that_is_not_possible() -> None:
    possible = torch.tensor([[True, False, True]])
    logits = TextReader(3)(torch.rand(1, 3, 8, 8), ["left"], possible=possible, logits=True)
    assert (logits[:, 1] == IMPOSSIBLE).all() and (logits[0, 2, :, :4] > logits[0, 0, :, :4]).all()


@pytest.fixture
def texts_of_films(phantoms: dict[str, Path], tmp_path: Path) -> Path:
    """X-rays with texts that a careless program would act upon, and named sides in validation."""
    shutil.copytree(phantoms["X-ray"].parent, tmp_path / "data")
    datalist = tmp_path / "data" / "datalist.json"
    content = json.loads(datalist.read_text())
    (source, *_) = content["training"]
    entries = []
    for number, text in enumerate(TEXTS):
        names = {key: f"{key}s/many_{number:02d}.png" for key in ("image", "label")}
        for key, name in names.items():
            shutil.copy(datalist.parent / source[key], datalist.parent / name)
        entries.append({**names, "text": text})
    for entry, text in zip(content["validation"], ("$left", "@right"), strict=True):
        entry["text"] = text
    datalist.write_text(json.dumps({**content, "training": entries}))
    return datalist


def train(
    workflow: Callable[..., ConfigWorkflow], datalist: Path, output: Path, **options: Any
) -> ConfigWorkflow:
    small = {
        "image_size": 64,
        "images_per_epoch": 64,
        "batch_size": 4,
        "epochs": 1,
        "warmup_steps": 3,
        "bfloat16": False,
        "num_workers": 0,
        "network_def": READER,
        "draw_noise": False,
        "training_step": {"_target_": "bundle.learning.LogitsInferer", "bfloat16": "@bfloat16"},
    }
    made = workflow("train.yaml", datalist=str(datalist), output_dir=str(output), **{**small, **options})
    TextReader.told.clear()
    made.run()
    return made


def test_a_network_trains_on_texts_as_written_and_is_validated_with_them(
    workflow: Callable[..., ConfigWorkflow], texts_of_films: Path, tmp_path: Path
) -> None:
    made = train(workflow, texts_of_films, tmp_path / "on", num_workers=1)
    in_training, in_validation = TextReader.told[:64], TextReader.told[64:]
    assert set(in_training) <= set(TEXTS) and len(set(in_training)) > len(TEXTS) / 2
    assert in_validation == ["$left", "@right"], "once, with the case's own text"
    metric = made.parser.get_parsed_content("scoring")
    assert {score.text for score in metric.scores} == {"on"}
    assert (tmp_path / "on" / "model.pt").is_file() and not Path("evaluated").exists()

    train(workflow, texts_of_films, tmp_path / "dropped", text_dropout=0.5)
    assert 16 <= TextReader.told[:64].count("") <= 48
    kept = [text for text in TextReader.told[:64] if text]
    assert set(kept) <= set(TEXTS)
    assert all(mine in (text, "") for mine, text in zip(TextReader.told[:64], in_training, strict=True))


def test_validation_is_without_text_where_none_is_given_or_read(
    workflow: Callable[..., ConfigWorkflow], texts_of_films: Path, tmp_path: Path
) -> None:
    content = json.loads(texts_of_films.read_text())
    for entry in content["validation"]:
        del entry["text"]
    texts_of_films.write_text(json.dumps(content))
    made = train(workflow, texts_of_films, tmp_path / "reader")
    assert TextReader.told[64:] == ["", ""]
    metric = made.parser.get_parsed_content("scoring")
    assert {score.text for score in metric.scores} == {"off"}
