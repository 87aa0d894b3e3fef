"""Image tokens of CLIP: sizes, normalisation, and folders that do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModel

from bundle.networks import VisionPrior, WeightsError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
    )
    CLIPVisionModel(config).save_pretrained(tmp_path)
    return tmp_path


def test_tokens_of_images_of_any_size(folder: Path) -> None:
    prior = VisionPrior(folder)
    assert prior.width == 16 and not list(prior.parameters())
    tokens = prior(torch.rand(2, 3, 50, 40))
    assert tokens.shape == (2, 1 + 16, 16) and not tokens.requires_grad
    image = torch.rand(1, 3, 32, 32)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    deviation = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    model = CLIPVisionModel.from_pretrained(folder).eval()
    expected = model(pixel_values=(image - mean) / deviation).last_hidden_state
    torch.testing.assert_close(prior(image), expected)


def test_folders_that_do_not_fit(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder with a CLIP image encoder"):
        VisionPrior(tmp_path / "nothing")
    config = CLIPVisionConfig.from_pretrained(folder)
    config.num_hidden_layers = 2
    config.save_pretrained(folder)
    with pytest.raises(WeightsError, match="16 tensors are missing or of another shape"):
        VisionPrior(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(WeightsError, match="its weights cannot be read .*a CLIP image encoder needs"):
        VisionPrior(folder)
    with pytest.raises(ValueError, match="clip_vit_b32"):
        VisionPrior(layout="vit_huge")
