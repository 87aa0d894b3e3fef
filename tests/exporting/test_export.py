"""Exported graphs against the network they were made of, at other sizes than they were traced with."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor, nn
from transformers import ModernBertConfig, ModernBertModel

from bundle.cases import CaseError
from bundle.cases.structures import Structures
from bundle.diffusion import cosine_log_snr, linear_beta_log_snr
from bundle.diffusion.sampling import Sampling
from bundle.exporting.folder import DESCRIPTION, LAYOUT_VERSION, read_export
from bundle.exporting.graphs import check_exportable, schedule_shift
from bundle.exporting.writing import export_segmenter
from bundle.inference import SegmentationInferer
from bundle.inference.prompts import PromptReader
from bundle.networks import (
    DiffusionSegmenter,
    Lcpdn,
    MaskDenoiser,
    PyramidTextConditioning,
    StructureNaming,
    TextPrior,
    WeightsError,
)
from bundle.networks.text_prior import EMBEDDED

pytest.importorskip("onnxscript", reason="the extra 'export' is not installed")
pytest.importorskip("onnxruntime", reason="the extra 'export' is not installed")
from bundle.exporting.onnx_segmenter import OnnxSegmenter  # noqa: E402

PROMPTS = ["the liver and the spleen", "", "lung " * 40]
SAMPLING: dict[str, Any] = {
    "steps": 2,
    "members": 1,
    "seed": 0,
    "sampler": "ddim",
    "placement": "log_snr",
    "consensus": "mean",
    "uncertainty": "entropy",
}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory, small_prior: type[nn.Module]) -> DiffusionSegmenter:
    """Every part of the shipped network, small, and no part silent: text_conditioning begins at zero."""
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    settings = json.loads((EMBEDDED / "config.json").read_text())
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    # one layer that sees 8 tokens to either side, so that sliding windows matter for these prompts
    layers = {"layer_types": ["full_attention", "sliding_attention"], "local_attention": 16}
    config = ModernBertConfig(**{**settings, **sizes, **layers, "dtype": "float32"})
    ModernBertModel(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(EMBEDDED / name, folder)
    text = TextPrior(folder, training="finetuned", max_tokens=100)
    prior: Any = small_prior()
    text_conditioning = PyramidTextConditioning(prior.channels, text.width, width=32)
    denoiser = MaskDenoiser(
        4,
        prior.channels,
        width=16,
        upsample_widths=(8,),
        time_conditioning="mask",
        mask_stride=4,
        detail=True,
    )
    made = DiffusionSegmenter(
        prior,
        denoiser,
        partial(cosine_log_snr, shift=-0.5),
        text_prior=text,
        text_conditioning=text_conditioning,
        naming=StructureNaming(3, text.width),
    )
    for leave in text_conditioning.leave:
        nn.init.normal_(leave.weight, std=0.3)
    nn.init.zeros_(made.naming.score.bias)  # type: ignore[union-attr]
    return made.eval()


@pytest.fixture(scope="module")
def write(network: DiffusionSegmenter, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Export the network into a new folder."""
    weights = tmp_path_factory.mktemp("weights") / "model.pt"
    torch.save(network.state_dict(), weights)

    def export(file_format: Any, quantise: bool = False) -> Path:
        folder = tmp_path_factory.mktemp("export") / "graphs"
        settings = SAMPLING
        export_segmenter(network, folder, file_format, settings, weights, {"torch": "0"}, quantise)
        return folder

    return export


@pytest.fixture(scope="module")
def folder(write: Callable[..., Path]) -> Path:
    return write("onnx")


@pytest.fixture(scope="module")
def runner(folder: Path) -> OnnxSegmenter:
    return OnnxSegmenter(folder)


@torch.no_grad()
@pytest.mark.parametrize(("count", "size"), [(1, (32, 32)), (2, (64, 96)), (3, (160, 64))])
def test_the_runner_predicts_what_the_network_predicts(
    network: DiffusionSegmenter, runner: OnnxSegmenter, count: int, size: tuple[int, int]
) -> None:
    image = torch.rand((count, 3, *size), generator=torch.Generator().manual_seed(2))
    keys, sampling = [f"case {i}" for i in range(count)], Sampling(steps=3, members=2, sampler="ancestral")
    possible = torch.tensor([[True, True, False, True]]).expand(count, -1)
    settings: Any = (image, keys, sampling, possible, PROMPTS[:count])
    eager, exported = network.predict(*settings), runner.predict(*settings)
    assert exported.shape == (6, count, 4, *size)
    assert torch.allclose(eager, exported, atol=1e-4)
    assert (exported[:, :, 2] == 0).all()
    # neither the text nor the image is left out of the graphs
    assert not torch.allclose(exported, runner.predict(image, keys, sampling, possible), atol=1e-3)
    assert not torch.allclose(
        exported, runner.predict(image.flip(-1), keys, sampling, possible, PROMPTS[:count]), atol=1e-3
    )


@torch.no_grad()
def test_texts_are_read_named_and_cut_alike(network: DiffusionSegmenter, runner: OnnxSegmenter) -> None:
    for prompt in (*PROMPTS, "liver " * 500):
        eager, exported = network.read(prompt), runner.read(prompt)
        assert eager.features is not None and exported.features is not None
        assert torch.equal(eager.features.mask, exported.features.mask)
        assert torch.allclose(eager.features.tokens, exported.features.tokens, atol=1e-4)
        assert torch.allclose(eager.features.pooled, exported.features.pooled, atol=1e-4)
        assert (exported.text, exported.channels) == (eager.text, eager.channels)
        assert exported.not_understood == eager.not_understood
        assert (eager.channels is None) == (not prompt)
        assert exported.cut_tokens == eager.cut_tokens and (eager.cut_tokens > 0) == (len(prompt) > 1000)
    assert any(network.read(prompt).channels for prompt in PROMPTS)


def test_exported_graphs_read_a_prompt_once_for_all_images(
    runner: OnnxSegmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Tensor] = []
    graph = runner._sessions["text_prior"]
    monkeypatch.setitem(
        runner._sessions, "text_prior", lambda ids, mask: (read.append(ids), graph(ids, mask))[1]
    )
    names = ("liver", "spleen", "lung")
    inferer = SegmentationInferer(Structures([{"name": name, "modality": "CT"} for name in names]))
    volume = MetaTensor(torch.rand(1, 1, 32, 32, 11), meta={"modality": "CT", "content_key": "a"})
    reader = PromptReader()
    for prompt in ("liver", "spleen", "liver"):
        inferer(volume, runner, prompt=prompt, reader=reader)
    assert len(read) == 2


@torch.no_grad()
def test_the_image_alone_gives_the_consensus_of_the_settings_of_the_export(
    network: DiffusionSegmenter, runner: OnnxSegmenter, images: Tensor
) -> None:
    network.sampling = Sampling(**SAMPLING)
    fused = network(images)
    assert torch.allclose(runner(images), fused, atol=1e-4)
    with pytest.raises(ValueError, match="cannot be trained"):
        runner(images, noisy=(torch.zeros(4, 4, 16, 16), torch.zeros(4)))
    with pytest.raises(ValueError, match=r"multiples of 32, not \(32, 48\)"):
        runner(torch.rand(1, 3, 32, 48))


def test_another_process_opens_the_folder_anew(runner: OnnxSegmenter, images: Tensor) -> None:
    sent = pickle.dumps(runner)
    assert len(sent) < 1000
    again: OnnxSegmenter = pickle.loads(sent)
    assert torch.equal(again(images), runner(images))


@pytest.mark.slow
@torch.no_grad()
def test_torch_export_graphs_are_read_by_torch_alone(
    network: DiffusionSegmenter, write: Callable[..., Path]
) -> None:
    folder = write("torch-export")
    text, encoder, denoiser = (
        torch.export.load(folder / f"{name}.pt2").module() for name in read_export(folder).content["graphs"]
    )
    image = torch.rand(1, 3, 96, 64, generator=torch.Generator().manual_seed(3))
    features = network.read(PROMPTS[0]).features
    assert features is not None and network.text_prior is not None
    ids = network.text_prior.prompt_tokens.ids(PROMPTS[0])[None]
    tokens, pooled, _ = text(ids, torch.ones_like(ids, dtype=torch.bool))
    assert torch.allclose(tokens, features.tokens, atol=1e-5)
    assert torch.allclose(pooled, features.pooled, atol=1e-5)
    condition = encoder(image, tokens, features.mask)
    x_t, level = torch.randn(1, 4, 24, 16), torch.tensor([-1.0])
    eager = network.denoise(x_t, level, network.encode(image, features))
    assert torch.allclose(denoiser(x_t, level, condition), eager, atol=1e-4)
    with pytest.raises(WeightsError, match="holds torch-export graphs; export with --format onnx"):
        OnnxSegmenter(folder)


@pytest.mark.slow
@torch.no_grad()
def test_quantised_graphs_are_near_and_say_so(
    network: DiffusionSegmenter, write: Callable[..., Path], folder: Path, images: Tensor
) -> None:
    quantised = write("onnx", quantise=True)
    assert read_export(quantised).content["quantised"] is True
    assert (quantised / "text_prior.onnx").read_bytes() != (folder / "text_prior.onnx").read_bytes()
    sampling = Sampling(**SAMPLING)
    masks = [
        one.predict(images, list("abcd"), sampling).mean(0).argmax(1)
        for one in (network, OnnxSegmenter(quantised))
    ]
    assert (masks[0] == masks[1]).float().mean() > 0.97


@pytest.mark.parametrize("name", ["text_prior.onnx", "image_prior.onnx", "denoiser.onnx"])
@pytest.mark.parametrize("how", ["missing", "changed"])
def test_a_folder_that_is_not_whole_is_refused(folder: Path, tmp_path: Path, name: str, how: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    if how == "missing":
        (copy / name).unlink()
    else:
        content = bytearray((copy / name).read_bytes())
        content[len(content) // 2] ^= 1
        (copy / name).write_bytes(content)
    sentence = {"missing": "is missing", "changed": "is not the file that export.json tells of"}[how]
    with pytest.raises(WeightsError, match=f"{name}: {sentence}"):
        OnnxSegmenter(copy)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"layout_version": LAYOUT_VERSION - 1}, "layout_version does not fit"),
        ({"network": {}}, "network does not fit"),
        ({"graphs": {"../../elsewhere": {}}}, "graphs does not fit"),
        ({"settings": {"_target_": "os.system"}}, "settings does not fit"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(
    folder: Path, tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    content = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    (tmp_path / DESCRIPTION).write_text(json.dumps({**content, **change}))
    with pytest.raises(WeightsError, match=sentence):
        read_export(tmp_path)
    (tmp_path / DESCRIPTION).write_text("{")
    with pytest.raises(WeightsError, match="is damaged"):
        read_export(tmp_path)
    with pytest.raises(WeightsError, match="cannot be read; give a folder"):
        read_export(tmp_path / "nowhere")


def test_what_cannot_be_exported_is_refused(network: DiffusionSegmenter, tmp_path: Path) -> None:
    assert schedule_shift(network.schedule) == -0.5 and schedule_shift(cosine_log_snr) == 0.0
    with pytest.raises(WeightsError, match="only a network with the cosine schedule"):
        schedule_shift(linear_beta_log_snr)
    with pytest.raises(WeightsError, match="Identity: only a DiffusionSegmenter with an image prior"):
        check_exportable(nn.Identity())
    assert not issubclass(Lcpdn, DiffusionSegmenter)
    settings: Any = (SAMPLING, tmp_path / "model.pt", {})
    with pytest.raises(WeightsError, match="--quantise goes with --format onnx alone"):
        export_segmenter(network, tmp_path / "new", "torch-export", *settings, quantise=True)
    (tmp_path / "thesis.doc").touch()
    with pytest.raises(CaseError, match="holds something that is no export; give another --output"):
        export_segmenter(network, tmp_path, "onnx", *settings)
    assert (tmp_path / "thesis.doc").exists() and not (tmp_path / "new").exists()
