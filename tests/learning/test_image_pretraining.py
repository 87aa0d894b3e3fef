"""Pretraining of image encoders: labels are never read, the steps are the papers', and it ends in usable encoders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bundle.cases import CaseReference
from bundle.cases.structures import Structures
from bundle.diffusion.schedule import linear_beta_log_snr, noised
from bundle.learning import (
    NoisedImageInferer,
    UnlabelledImages,
    ViewContrast,
    case_references,
    prepare_image_batch,
    prepare_views,
)
from bundle.networks import ImageDdpmPrior, VisionPrior
from bundle.transforms import cropping, preprocessing
from tests.support.grids import SMALL_GRIDS

STRUCTURES = Structures([{"name": "nucleus", "modality": "H&E"}, {"name": "liver", "modality": "CT"}])


def without_labels(datalist: Path, folder: Path) -> Path:
    """The same images in a list whose labels would end any attempt to read them."""
    content = json.loads(datalist.read_text())
    label = folder / "label.png"
    label.write_text("no picture")
    for entry in content["training"]:
        entry["image"] = str(datalist.parent / entry["image"])
        entry["label"] = str(label)
    path = folder / "datalist.json"
    path.write_text(json.dumps({"name": "unlabelled", "training": content["training"]}))
    return path


def make(groups: list[list[CaseReference]], **settings: Any) -> UnlabelledImages:
    steps = preprocessing(
        STRUCTURES,
        SMALL_GRIDS,
    )
    return UnlabelledImages(
        groups, steps, cropping(32, vary_intensity=True), images_per_epoch=40, progress=False, **settings
    )


def test_draws_and_views_depend_on_seed_epoch_and_position_alone(
    phantoms: dict[str, Path], tmp_path: Path
) -> None:
    unlabelled = without_labels(phantoms["H&E"], tmp_path)
    groups = case_references([unlabelled, phantoms["CT"]], "training")
    one, other = make(groups, views=2, shares=[3, 1]), make(groups, views=2, shares=[3, 1])
    list(other)
    item = one[7]
    assert {name: tuple(view.shape) for name, view in item.items()} == {
        "image": (3, 32, 32),
        "other": (3, 32, 32),
    }
    assert all(torch.equal(view, other[7][name]) for name, view in item.items())
    assert not torch.equal(item["image"], item["other"])
    assert min(float(view.min()) for view in item.values()) >= 0
    assert max(float(view.max()) for view in item.values()) <= 1
    other.set_epoch(2)
    assert not torch.equal(one.plan, other.plan)
    pictures = sum(one.units[int(unit)][1] is None for unit in one.plan)
    assert 22 <= pictures <= 38  # of 40, three quarters


def test_data_that_cannot_be_used(phantoms: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="there is no training case"):
        make([[]])
    groups = case_references(phantoms["H&E"], "training")
    with pytest.raises(ValueError, match="do not fit 1 datalists"):
        make(groups, shares=[1, 1])


def test_step_noises_by_the_linear_schedule_and_asks_for_the_noise() -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    class Network(nn.Module):
        def forward(self, x_t: Tensor, timesteps: Tensor) -> Tensor:
            seen.append((x_t, timesteps))
            return torch.cat([x_t, x_t], dim=1)  # with a variance that is not asked for

    batch = {"image": torch.rand(8, 3, 4, 4)}
    inputs, target, _, extra = prepare_image_batch(batch, "cpu")
    torch.testing.assert_close(inputs, batch["image"] * 2 - 1)
    assert target is extra["noise"]
    prediction = NoisedImageInferer()(inputs, Network(), **extra)
    ((x_t, timesteps),) = seen
    assert prediction.shape == target.shape
    assert timesteps.min() >= 0 and timesteps.max() <= 999
    gaps = timesteps.sort().values.diff()
    assert gaps.min() >= 124 and gaps.max() <= 126  # spread over the schedule
    torch.testing.assert_close(x_t, noised(inputs, target, linear_beta_log_snr(timesteps / 999)))
    NoisedImageInferer(timesteps=300)(inputs, Network(), **extra)
    assert 250 < seen[-1][1].max() < 300
    with pytest.raises(ValueError, match="1 to 1000"):
        NoisedImageInferer(timesteps=1001)


def test_view_contrast_is_nt_xent() -> None:
    torch.manual_seed(0)
    views, other = prepare_views({"image": torch.zeros(3, 1), "other": torch.ones(3, 1)}, "cpu")
    assert views.flatten().tolist() == [0, 0, 0, 1, 1, 1] and other.tolist() == [3, 4, 5, 0, 1, 2]
    embedding = nn.functional.normalize(torch.randn(6, 4), dim=1)
    total = 0.0
    for i in range(6):
        similar = [float(embedding[i] @ embedding[j]) / 0.2 for j in range(6)]
        negatives = torch.tensor([value for j, value in enumerate(similar) if j != i])
        total -= similar[int(other[i])] - float(negatives.logsumexp(0))
    assert float(ViewContrast(0.2)(embedding, other)) == pytest.approx(total / 6, rel=1e-5)


#: What pretraining is an overlay over.
FILES = "'configs/inference.yaml','configs/train.yaml','configs/pretrain_image_ddpm.yaml'"
SMALL = [
    "--image_size", "32", "--xray#size", "32", "--images_per_epoch", "8", "--batch_size", "4",
    "--warmup_steps", "1", "--num_workers", "0", "--progress", "False", "--schedule_epochs", "2",
]  # fmt: skip


def test_command_trains_an_image_ddpm_and_goes_on_bit_for_bit(
    commands: Any, phantoms: dict[str, Path], tmp_path: Path
) -> None:
    datalist = without_labels(phantoms["H&E"], tmp_path)
    run = ["run", "--config_file", f"[{FILES}]", "--datalist", datalist, *SMALL]
    for folder, epochs in (("whole", 2), ("parts", 1), ("parts", 2)):
        done = commands("monai.bundle", *run, "--epochs", epochs, "--output_dir", tmp_path / folder)
        assert done.code == 0, done.stderr
    files = [tmp_path / folder / "image_ddpm" / "model.safetensors" for folder in ("whole", "parts")]
    assert files[0].read_bytes() == files[1].read_bytes()
    prior = ImageDdpmPrior(files[0].parent, blocks=(0, 2, 4, 6))
    assert [tuple(maps.shape[1:]) for maps in prior(torch.rand(1, 3, 32, 32))] == [
        (288, 2, 2),
        (288, 4, 4),
        (192, 8, 8),
        (96, 16, 16),
    ]


def test_command_trains_an_image_encoder(commands: Any, phantoms: dict[str, Path], tmp_path: Path) -> None:
    datalist = without_labels(phantoms["H&E"], tmp_path)
    files = f"[{FILES},'configs/pretrain_vision.yaml']"
    run = ["run", "--config_file", files, "--datalist", datalist, *SMALL, "--image_size", "128"]
    done = commands("monai.bundle", *run, "--epochs", 1, "--output_dir", tmp_path / "out")
    assert done.code == 0, done.stderr
    prior = VisionPrior(tmp_path / "out" / "vision_prior")
    assert prior(torch.rand(2, 3, 40, 50)).shape == (2, 65, 128)
