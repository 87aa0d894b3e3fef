"""Pre-training of the text encoder: it learns, goes on exactly, and leaves a folder that transformers reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

from bundle.learning.text_encoder import EncoderSize, sinusoids
from bundle.learning.text_pretraining import (
    TextPretraining,
    contrastive_loss,
    mask_tokens,
    misspell,
)
from bundle.networks import WeightsError
from bundle.networks.text_prior import TextPrior

SMALL = EncoderSize(vocabulary=400, width=16, layers=2, heads=2, intermediate=16, local_attention=16)


@pytest.fixture
def training(tmp_path: Path) -> Callable[..., TextPretraining]:
    def make(name: str = "run", **settings: Any) -> TextPretraining:
        small: dict[str, Any] = {
            "size": SMALL,
            "steps": 4,
            "pairs": 8,
            "notes": 1,
            "note_tokens": 32,
            "corpus": 200,
            "warmup_steps": 1,
            "save_every": 2,
            "progress": False,
        }
        return TextPretraining(tmp_path / name, **{**small, **settings})

    return make


@pytest.mark.parametrize(("architecture", "limit"), [("modernbert", 8192), ("bert", 512)])
def test_folder_is_read_by_transformers_and_by_the_text_prior(
    training: Callable[..., TextPretraining], architecture: str, limit: int
) -> None:
    run = training(architecture=architecture)
    figures = run.run()
    assert set(figures) == {"retrieval", "retrieval_all", "sides_reports", "sides_prompts"}
    assert sorted(path.name for path in run.folder.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    tokenizer = AutoTokenizer.from_pretrained(run.folder, local_files_only=True)
    model = AutoModel.from_pretrained(run.folder, local_files_only=True, dtype=torch.float32).eval()
    ids = tokenizer("Left Kidney")["input_ids"]
    assert ids == run.tokenizer("left kidney")["input_ids"]
    assert {tensor.dtype for tensor in load_file(run.folder / "model.safetensors").values()} == {
        torch.float16
    }
    prior = TextPrior(run.folder)
    assert prior.max_tokens == limit and prior.width == 16
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([ids])).last_hidden_state[0].mean(0)
    pooled = prior(["left kidney"]).pooled[0]
    torch.testing.assert_close(pooled, expected, atol=1e-5, rtol=1e-5)
    # the embedding that was trained, but for the half precision of the file
    cosine = torch.nn.functional.cosine_similarity(pooled, run.embed(["left kidney"])[0].cpu(), dim=0)
    assert cosine > 0.999
    assert f"--architecture {architecture}" in (run.folder / "README.md").read_text()


def test_a_stopped_training_goes_on_exactly(training: Callable[..., TextPretraining]) -> None:
    size = replace(SMALL, dropout=0.1)
    whole = training("whole", size=size)
    whole.run()
    training("parts", size=size).run(until=2)
    parts = training("parts", size=size)
    assert parts.done == 2 and not parts.folder.exists()
    parts.run()
    expected = whole.model.state_dict()
    for name, tensor in parts.model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    lines = (parts.output_dir / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2, 4]
    again = training("parts", size=size)
    assert again.done == 4 and again.run() == parts.evaluate()


def test_another_training_in_the_same_folder_is_refused(training: Callable[..., TextPretraining]) -> None:
    training().run(until=2)
    with pytest.raises(WeightsError, match="was trained with steps 4, not 9"):
        training(steps=9)


def test_unknown_architecture_is_refused(training: Callable[..., TextPretraining]) -> None:
    with pytest.raises(ValueError, match="architecture must be modernbert or bert, not 'gpt'"):
        training(architecture="gpt")


def test_first_positions_know_distances_and_nothing_else() -> None:
    table = sinusoids(64, 32)
    likeness = table @ table.T
    for distance in (0, 1, 7):
        same = likeness.diagonal(distance)
        torch.testing.assert_close(same, same[:1].expand_as(same), atol=1e-5, rtol=0.0)
    assert likeness[0, 0] > likeness[0, 1] > likeness[0, 7]


def test_readme_names_what_is_not_the_default(training: Callable[..., TextPretraining]) -> None:
    run = training(architecture="bert", learning_rate=1e-3, size=replace(SMALL, dropout=0.1))
    run.run()
    command = (run.folder / "README.md").read_text().split("--output_dir DIR")[1].split("\n\n")[0]
    assert "--architecture bert" in command and "--steps 4" in command and "--dropout 0.1" in command
    assert "--learning_rate 0.001" in command and "--seed" not in command


def test_losses_fall(training: Callable[..., TextPretraining]) -> None:
    run = training(steps=40, pairs=16, learning_rate=1e-2, save_every=40)
    first = run._step(0)
    for step in range(1, 40):
        last = run._step(step)
    assert last["masked"] < first["masked"] - 0.5
    assert last["contrastive"] < first["contrastive"] - 0.5


def test_texts_of_the_same_meaning_are_no_negatives() -> None:
    embeddings = torch.eye(3)
    apart = contrastive_loss(embeddings, embeddings, ["a", "b", "c"], 0.1)
    wrong = torch.stack([embeddings[0], embeddings[0], embeddings[2]])
    assert apart < 0.01
    assert contrastive_loss(wrong, wrong, ["a", "b", "c"], 0.1) > 0.4
    assert contrastive_loss(wrong, wrong, ["a", "a", "c"], 0.1) < 0.01


def test_masking_spares_what_must_stay() -> None:
    ids = torch.full((50, 100), 7)
    maskable = torch.ones(50, 100, dtype=torch.bool)
    maskable[:, 0] = False
    corrupted, labels = mask_tokens(ids, maskable, 0.25, 4, 300, torch.Generator().manual_seed(0))
    chosen = labels != -100
    assert not chosen[:, 0].any() and (labels[chosen] == 7).all()
    assert (corrupted[~chosen] == 7).all()
    assert float(chosen[:, 1:].float().mean()) == pytest.approx(0.25, abs=0.03)
    assert float((corrupted[chosen] == 4).float().mean()) == pytest.approx(0.8, abs=0.05)
    assert float((corrupted[chosen] == 7).float().mean()) == pytest.approx(0.1, abs=0.04)
    assert corrupted.min() >= 4  # no other special token


def test_misspelt_words_keep_their_ends_and_sides_are_spelt_right() -> None:
    random = Random(0)
    texts = {misspell("the left parenchyma", random) for _ in range(100)}
    assert len(texts) > 10
    for text in texts:
        article, side, word = text.split(" ")
        assert (article, side) == ("the", "left")
        assert word != "parenchyma" and word[0] == "p" and word[-1] == "a"
    assert misspell("left lung", random) == "left lung"


def test_command_writes_the_folder(commands: Any, tmp_path: Path) -> None:
    sizes = {"vocabulary": 400, "width": 16, "layers": 1, "heads": 2, "intermediate": 16, "corpus": 200}
    settings = {"steps": 2, "pairs": 4, "notes": 1, "note_tokens": 32, "progress": False, **sizes}
    arguments = [item for name, value in settings.items() for item in (f"--{name}", value)]
    done = commands(
        "monai.bundle",
        "run",
        "--config_file",
        "configs/pretrain_text.yaml",
        "--output_dir",
        tmp_path,
        *arguments,
    )
    assert done.code == 0, done.stderr
    assert (tmp_path / "text_prior" / "model.safetensors").is_file()
    wrong = commands(
        "monai.bundle", "run", "--config_file", "configs/pretrain_text.yaml", "--architectur", "bert"
    )
    assert wrong.code == 2 and "did you mean --architecture?" in wrong.stderr
