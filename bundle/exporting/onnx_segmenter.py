"""An exported network as a `bundle.networks.protocol.Segmenter`, by ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bundle.diffusion.consensus import consensus
from bundle.diffusion.sampling import Sampling, sample_masks
from bundle.diffusion.schedule import cosine_log_snr
from bundle.exporting.folder import TOKENIZER, Export, check_packages, read_export
from bundle.networks.prompt_reading import PromptReading, Prompts, batched_features
from bundle.networks.prompt_tokens import PromptTokens, load_tokenizer
from bundle.networks.segmenter import only_possible
from bundle.networks.text_prior import TextFeatures
from bundle.networks.weights import WeightsError

_CPU = torch.device("cpu")


class OnnxSegmenter(nn.Module):
    """Samples masks as `DiffusionSegmenter` does, with the graphs of a folder in place of its parts.

    It has no parameters. Another process opens the folder anew.

    Args:
        folder: that `python -m bundle export --format onnx` wrote.

    Raises:
        WeightsError: packages of the extra 'export' are missing, or the folder is of another format or damaged.
    """

    def __init__(self, folder: Path | str) -> None:
        super().__init__()
        check_packages("onnxruntime")
        self.export = read_export(folder)
        if self.export.content["format"] != "onnx":
            raise WeightsError(
                f"{folder}: holds {self.export.content['format']} graphs; export with --format onnx."
            )
        about = self.export.network
        self.classes: int = about["classes"]
        self.stride: int = about["stride"]
        self.mask_stride: int = about["mask_stride"]
        self.names_structures: bool = about["names_structures"]
        self.schedule = partial(cosine_log_snr, shift=about["schedule"]["shift"])
        settings = self.export.settings
        self.sampling = Sampling(**{field.name: settings[field.name] for field in fields(Sampling)})
        self._sessions = {name: _Session(self.export, name) for name in self.export.content["graphs"]}
        self._tokens: PromptTokens | None = None
        if "text_prior" in self._sessions:
            tokenizer = load_tokenizer(str(self.export.folder / TOKENIZER), "text prior")
            self._tokens = PromptTokens(tokenizer, about["max_tokens"])

    def __reduce__(self) -> tuple[type[OnnxSegmenter], tuple[Path]]:
        return type(self), (self.export.folder,)

    @property
    def reads_text(self) -> bool:
        return self._tokens is not None

    def read(self, prompt: str) -> PromptReading:
        if self._tokens is None:
            return PromptReading(prompt)
        ids = self._tokens.ids(prompt)[None]
        mask = torch.ones_like(ids, dtype=torch.bool)
        tokens, pooled, *naming = self._sessions["text_prior"](ids, mask)
        log_odds = naming[0] if self.names_structures else None
        return PromptReading.of(
            prompt, TextFeatures(tokens, mask, pooled), log_odds, self._tokens.cut(prompt)
        )

    def encode(self, image: Tensor, text: TextFeatures | None = None) -> list[Tensor]:
        """As `DiffusionSegmenter.encode`."""
        if image.shape[-2] % self.stride or image.shape[-1] % self.stride:
            raise ValueError(f"image sides must be multiples of {self.stride}, not {tuple(image.shape[-2:])}")
        session = self._sessions["image_prior"]
        if "tokens" not in session.inputs:
            return session(image)
        assert text is not None
        return session(image, text.tokens, text.mask)

    def denoise(
        self, x_t: Tensor, log_snr: Tensor, condition: Sequence[Tensor], possible: Tensor | None = None
    ) -> Tensor:
        """As `DiffusionSegmenter.denoise`."""
        return only_possible(self._sessions["denoiser"](x_t, log_snr, *condition)[0], possible)

    def predict(
        self,
        image: Tensor,
        keys: Sequence[str],
        sampling: Sampling,
        possible: Tensor | None = None,
        prompts: Prompts | None = None,
    ) -> Tensor:
        """As `bundle.networks.protocol.Segmenter.predict`."""
        condition = self.encode(image, batched_features(prompts, len(image), self.read))
        return sample_masks(
            lambda x_t, log_snr: self.denoise(x_t, log_snr, condition, possible),
            keys,
            (self.classes, *image.shape[-2:]),
            self.schedule,
            sampling,
            self.mask_stride,
        )

    def forward(
        self,
        image: Tensor,
        prompts: Sequence[str] | None = None,
        noisy: tuple[Tensor, Tensor] | None = None,
        possible: Tensor | None = None,
    ) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, classes, H, W) probabilities, sampled as the export's settings say.

        Raises:
            ValueError: a training step is asked for.
        """
        if noisy is not None:
            raise ValueError("an exported network cannot be trained")
        keys = [f"image {index}" for index in range(len(image))]
        predictions = self.predict(image, keys, self.sampling, possible, prompts)
        return consensus(predictions, self.sampling.steps, self.sampling.consensus)


class _Session:
    """A graph that takes and gives tensors, in the order that export.json names them."""

    def __init__(self, export: Export, name: str) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        graph = export.graph(name)
        try:
            self._session: Any = onnxruntime.InferenceSession(
                graph, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # of a dozen kinds
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise WeightsError(
                f"{export.folder}: ONNX Runtime cannot load {name} ({reason}); export it again."
            ) from error
        described = export.content["graphs"][name]
        self.inputs: tuple[str, ...] = tuple(described["inputs"])
        self._outputs: list[str] = list(described["outputs"])

    def __call__(self, *arguments: Tensor) -> list[Tensor]:
        given = {
            name: np.ascontiguousarray(value.detach().cpu().numpy())
            for name, value in zip(self.inputs, arguments, strict=True)
        }
        return [torch.from_numpy(result) for result in self._session.run(self._outputs, given)]
