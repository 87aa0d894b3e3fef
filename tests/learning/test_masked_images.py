"""Masked image modelling: what is hidden is hidden, the loss is of it alone, and a usable image prior comes out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from bundle.learning import MaskedImageInferer, MaskedImageLoss, MaskedImageModel
from bundle.learning.masked_images import Restored, hidden_squares
from bundle.networks import PvtV2Prior


@pytest.mark.parametrize("size", [(64, 64), (64, 96), (72, 50)])
def test_whole_squares_are_hidden_as_many_as_asked_for(size: tuple[int, int]) -> None:
    hidden = hidden_squares(torch.Size((5, 3, *size)), 16, 0.5)
    assert hidden.shape == (5, 1, *size) and hidden.dtype == torch.bool
    squares = hidden[:, 0, ::16, ::16]
    assert (squares.flatten(1).sum(1) == round(0.5 * squares[0].numel())).all()
    for row in range(squares.shape[1]):
        for column in range(squares.shape[2]):
            block = hidden[:, 0, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
            assert torch.equal(block, squares[:, row, column, None, None].expand_as(block))
    assert not torch.equal(squares[0], squares[1])


def test_nothing_of_what_is_hidden_reaches_the_network() -> None:
    model = MaskedImageModel(PvtV2Prior("b0"), width=8).eval()
    image = torch.rand(1, 3, 64, 64)
    hidden = hidden_squares(image.shape, 16, 0.5)
    with torch.no_grad():
        restored = model(image, hidden)
        assert restored.shape == image.shape
        assert torch.equal(restored, model(torch.where(hidden, torch.rand_like(image), image), hidden))
        assert not torch.equal(restored, model(torch.where(hidden, image, torch.rand_like(image)), hidden))


def test_the_loss_is_the_mean_difference_where_it_was_hidden() -> None:
    image, guess = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    hidden = hidden_squares(image.shape, 16, 0.5)
    total, count = 0.0, 0
    for number in range(2):
        for row, column in hidden[number, 0].nonzero().tolist():
            total += float((guess - image)[number, :, row, column].abs().sum())
            count += 3
    loss = MaskedImageLoss()(Restored(guess, hidden), image)
    assert float(loss) == pytest.approx(total / count, rel=1e-5)


def test_everything_learns() -> None:
    model = MaskedImageModel(PvtV2Prior("b0"), width=8)
    image = torch.rand(2, 3, 64, 64)
    MaskedImageLoss()(MaskedImageInferer(bfloat16=True)(image, model), image).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_to_hide_nothing_or_everything_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="hidden_share must lie between 0 and 1"):
        MaskedImageInferer(share=share)


def test_command_trains_an_image_prior(commands: Any, phantoms: dict[str, Path], tmp_path: Path) -> None:
    files = ["inference", "train", "pretrain_image_ddpm", "pretrain_image_prior"]
    settings = {"image_size": 64, "images_per_epoch": 4, "batch_size": 2, "epochs": 1, "num_workers": 0}
    run = [
        "run",
        "--config_file",
        str([f"configs/{name}.yaml" for name in files]),
        "--datalist",
        phantoms["H&E"],
        "--progress",
        "False",
    ]
    run += [text for name, value in settings.items() for text in (f"--{name}", str(value))]
    done = commands("monai.bundle", *run, "--output_dir", tmp_path / "out")
    assert done.code == 0, done.stderr
    prior = PvtV2Prior("b0_slim", pretrained=str(tmp_path / "out" / "image_prior"))
    assert len(prior(torch.rand(1, 3, 64, 64))) == 4
