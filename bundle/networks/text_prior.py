"""Text prior: token features and a pooled vector of the prompt, by a transformer encoder.

ModernBERT (Warner et al., 'Smarter, Better, Faster, Longer', 2024), BERT (Devlin et al., 2019; Clinical BioBERT,
Alsentzer et al., 2019, is one) and the text half of CLIP (Radford et al., 2021), with the layers of transformers
(Apache-2.0), so that published weights fit as they are. The prior sees neither image nor noise: it runs once a
prompt. Low-rank adapters: Hu et al., 'LoRA' (2022), by peft (Apache-2.0).
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    BertConfig,
    BertModel,
    CLIPTextConfig,
    CLIPTextModel,
    ModernBertConfig,
    ModernBertModel,
    PreTrainedConfig,
    PreTrainedModel,
)

from bundle.networks.frozen import Frozen
from bundle.networks.pretrained import find_pretrained, load_pretrained, unreadable
from bundle.networks.prompt_tokens import PromptTokens, load_tokenizer
from bundle.networks.tensor_store import TensorStore
from bundle.networks.weights import WeightsError
from bundle.root import MODELS

Training = Literal["frozen", "finetuned", "lora"]
Attention = Literal["auto", "flash_attention_2", "sdpa", "eager"]

#: The encoder that comes with the bundle.
EMBEDDED = MODELS / "text_prior"
_WHAT = "text encoder"  # in messages
_SPECIAL_TOKENS = 2  # one at either end
_LORA_RANK, _LORA_ALPHA = 8, 16
_NEEDS_CUDA = "needs a CUDA device"


@dataclass(frozen=True)
class _Family:
    """One architecture: its classes in transformers, and its attention projections by the ends of their names."""

    config: type[Any]
    model: type[Any]
    projections: tuple[str, ...]
    options: Mapping[str, Any]


_MODERNBERT = _Family(ModernBertConfig, ModernBertModel, ("attn.Wqkv", "attn.Wo"), {})
_BERT = _Family(
    BertConfig,
    BertModel,
    ("self.query", "self.key", "self.value", "attention.output.dense"),
    {"add_pooling_layer": False},
)
_CLIP = _Family(CLIPTextConfig, CLIPTextModel, ("q_proj", "k_proj", "v_proj", "out_proj"), {})
#: By 'model_type' of config.json.
_FAMILIES = {"modernbert": _MODERNBERT, "bert": _BERT, "clip": _CLIP, "clip_text_model": _CLIP}

#: Published sizes: Devlin et al. with Clinical BioBERT's cased vocabulary; Warner et al., table 4; Radford et al.,
#: table 19.
TEXT_LAYOUTS: dict[str, tuple[str, dict[str, int]]] = {
    "bert_base": ("bert", {"vocab_size": 28996}),
    "modernbert_base": ("modernbert", {}),
    "modernbert_large": (
        "modernbert",
        {
            "hidden_size": 1024,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "intermediate_size": 2624,
        },
    ),
    "clip_text_b32": ("clip", {}),
    "clip_text_l14": (
        "clip",
        {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "projection_dim": 768},
    ),
}


@dataclass(frozen=True)
class TextFeatures:
    """What the text prior says about B prompts.

    Attributes:
        tokens: (B, N, width) float32, zero where there is no token.
        mask: (B, N) bool, True at tokens of the prompt, among them the special ones at its ends.
        pooled: (B, width) float32, mean of those tokens.
    """

    tokens: Tensor
    mask: Tensor
    pooled: Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    @classmethod
    def joined(cls, parts: Sequence[TextFeatures]) -> TextFeatures:
        """One batch of several, which is not copied where all of them are the same single prompt."""
        first = parts[0]
        if len(first) == 1 and all(part is first for part in parts):
            return cls(
                *(
                    each.expand(len(parts), *each.shape[1:])
                    for each in (first.tokens, first.mask, first.pooled)
                )
            )
        return cls(
            tokens=pad_sequence([row for part in parts for row in part.tokens], batch_first=True),
            mask=pad_sequence([row for part in parts for row in part.mask], batch_first=True),
            pooled=torch.cat([part.pooled for part in parts]),
        )

    def first(self, count: int) -> TextFeatures:
        """Of the first prompts alone."""
        longest = int(self.mask[:count].sum(dim=1).max())
        return TextFeatures(self.tokens[:count, :longest], self.mask[:count, :longest], self.pooled[:count])


class TextPrior(nn.Module):
    """Features of prompts, by an encoder from a folder, from a hub, or with random weights.

    A network without text has None in place of this module.

    A frozen encoder embeds each distinct prompt by itself, so that its features depend neither on the other
    prompts of a batch nor on their order; it is no part of the network's weights, which hold its fingerprint.
    The other two embed all prompts of a batch in one pass, each time. Words that look like special tokens
    ('[MASK]', '</s>') are words.

    Args:
        source: folder with config.json, model.safetensors and a tokenizer, or hub name, e.g.
            'answerdotai/ModernBERT-base'; None takes the encoder that comes with the bundle.
        training: 'frozen'; 'finetuned', all weights; 'lora', low-rank adapters of the attention projections.
            In the last two the encoder's weights are part of the network's.
        attention: 'auto' takes FlashAttention 2 where package, device and architecture have it, else PyTorch's
            scaled-dot-product attention. FlashAttention computes in bfloat16.
        max_tokens: longer prompts are cut at their end; None for as many as the architecture takes. More than
            that (BERT 512, CLIP 77) has no effect.
        store: where a frozen encoder keeps embeddings, named by a digest of weights and prompt. The prompts
            themselves are not kept, but could be recovered: what is kept of a report is patient data too. None
            to embed every prompt anew in each call.
        layout: a key of `TEXT_LAYOUTS`, in place of `source`: random weights of a published size with the
            tokenizer of the bundle, to count parameters and to measure speed.

    Attributes:
        width: of the features.
        max_tokens: the limit that holds, special tokens included.
        prompt_tokens: tokenizer and limit.
        attention: what was chosen.

    Raises:
        FileNotFoundError: `source` looks like a path and there is no such folder.
        WeightsError: the source is incomplete, damaged, or of another architecture.
        ValueError: unknown layout or way of training, or attention that cannot be used here.
    """

    def __init__(
        self,
        source: str | Path | None = None,
        training: Training = "frozen",
        attention: Attention = "auto",
        max_tokens: int | None = 8192,
        store: TensorStore | None = None,
        layout: str | None = None,
    ) -> None:
        super().__init__()
        if training not in ("frozen", "finetuned", "lora"):
            raise ValueError(
                f"training of the text prior must be frozen, finetuned or lora, not {training!r}"
            )
        if source is not None and layout is not None:
            raise ValueError("the text prior takes a source or a layout, not both")
        if max_tokens is not None and max_tokens <= _SPECIAL_TOKENS:
            raise ValueError(f"max_tokens must be above {_SPECIAL_TOKENS}, not {max_tokens}")
        folder = find_pretrained(EMBEDDED if source is None else source, _WHAT)
        family, config = _read_layout(layout) if layout is not None else _read_config(folder)
        self.attention: str = _choose_attention(attention, family.model)
        self._attention_was_asked_for = attention != "auto"
        model: PreTrainedModel = (
            family.model._from_config(config, attn_implementation=self.attention, **family.options)
            if layout is not None
            else load_pretrained(
                family.model,
                folder,
                _WHAT,
                config=config,
                attn_implementation=self.attention,
                **family.options,
            )
        )
        tokenizer = load_tokenizer(folder, _WHAT)
        limit = int(config.max_position_embeddings)
        self.max_tokens = limit if max_tokens is None else min(max_tokens, limit)
        self.prompt_tokens = PromptTokens(tokenizer, self.max_tokens)
        self.width = int(config.hidden_size)
        self._store = store
        self.encoder: nn.Module
        backend = getattr(tokenizer, "backend_tokenizer", None)
        tokens = backend.to_str() if backend is not None else ""
        if training == "frozen":
            self.encoder = Frozen(model, _WHAT, tokens)
        else:
            self.encoder = model if training == "finetuned" else _with_adapters(model, family.projections)
            # trained weights mean nothing beside other tokens
            self.tokens = Frozen(nn.Identity(), "tokenizer", tokens)

    def forward(self, prompts: Sequence[str]) -> TextFeatures:
        """B prompts -> their features; an empty prompt is its special tokens.

        Raises:
            TypeError: a single string in place of a sequence.
            ValueError: no prompt.
        """
        if isinstance(prompts, str):
            raise TypeError("the text prior takes a sequence of prompts, not a single string")
        if not prompts:
            raise ValueError("the text prior needs at least one prompt")
        device = self._device()
        if self.attention == "flash_attention_2" and device.type != "cuda":
            self._leave_flash_attention()
        distinct = list(dict.fromkeys(prompts))
        embed = self._embed_once if isinstance(self.encoder, Frozen) else self._embed
        embedded = dict(zip(distinct, embed(distinct), strict=True))
        sequences = [embedded[prompt].to(device) for prompt in prompts]
        return TextFeatures(
            tokens=pad_sequence(sequences, batch_first=True),
            mask=token_mask([len(sequence) for sequence in sequences], device),
            pooled=torch.stack([sequence.mean(0) for sequence in sequences]),
        )

    def cut_tokens(self, prompt: str) -> int:
        """How many tokens at the end of a prompt are left out; 0 for all but very long ones."""
        return self.prompt_tokens.cut(prompt)

    @property
    def model(self) -> nn.Module:
        """The encoder itself, frozen or not."""
        return self.encoder.module if isinstance(self.encoder, Frozen) else self.encoder

    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def _embed(self, prompts: Sequence[str]) -> list[Tensor]:
        """(length, width) float32 of each prompt, all in one pass."""
        device = self._device()
        ids = [self.prompt_tokens.ids(prompt) for prompt in prompts]
        padded = pad_sequence(ids, batch_first=True).to(device)
        mask = token_mask([len(sequence) for sequence in ids], device).long()
        # as exact within a training in reduced precision as outside; FlashAttention knows no full one
        with torch.autocast(device.type, torch.bfloat16, enabled=self.attention == "flash_attention_2"):
            output = self.encoder(input_ids=padded, attention_mask=mask).last_hidden_state.float()
        return [features[: len(sequence)] for features, sequence in zip(output, ids, strict=True)]

    @torch.no_grad()
    def _embed_once(self, prompts: Sequence[str]) -> list[Tensor]:
        assert isinstance(self.encoder, Frozen)
        context = f"{self.encoder.digest} {self.max_tokens} {self.attention == 'flash_attention_2'}"
        embedded = []
        for prompt in prompts:
            key = _digest(context, prompt)
            kept = self._store.get(key) if self._store is not None else None
            features = (kept or {}).get("tokens")
            if features is None or features.ndim != 2 or features.shape[1] != self.width:
                features = self._embed([prompt])[0]
                if self._store is not None:
                    self._store.put(key, {"tokens": features})
            embedded.append(features)
        return embedded

    def _leave_flash_attention(self) -> None:
        if self._attention_was_asked_for:
            raise ValueError(f"flash_attention_2 {_NEEDS_CUDA}; use attention=sdpa.")
        self.model.set_attn_implementation("sdpa")  # type: ignore[operator]
        self.attention = "sdpa"


def token_mask(lengths: Sequence[int], device: torch.device) -> Tensor:
    """(B, longest) bool, True within each length."""
    return (torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]).to(device)


def _digest(context: str, prompt: str) -> str:
    return hashlib.sha256(f"{context}\n{prompt}".encode("utf-8", "surrogatepass")).hexdigest()


def _read_config(source: str) -> tuple[_Family, PreTrainedConfig]:
    local = Path(source).is_dir()
    try:
        content, _ = PreTrainedConfig.get_config_dict(source, local_files_only=local)
        if not content:
            raise OSError("it is missing or empty")
        family = _FAMILIES.get(content.get("model_type"))
        config = family.config.from_pretrained(source, local_files_only=local) if family is not None else None
    except Exception as error:  # of a dozen kinds
        raise unreadable(source, _WHAT, "config.json", error) from error
    if family is None or config is None:
        raise WeightsError(
            f"{source}: is a {content.get('model_type') or 'model of unknown type'}, no text encoder that can be "
            f"used; give one of {', '.join(_FAMILIES)}."
        )
    return family, config


def _read_layout(layout: str) -> tuple[_Family, PreTrainedConfig]:
    if layout not in TEXT_LAYOUTS:
        raise ValueError(f"layout of the text prior must be one of {', '.join(TEXT_LAYOUTS)}, not {layout!r}")
    name, settings = TEXT_LAYOUTS[layout]
    family = _FAMILIES[name]
    return family, family.config(**settings)


def _choose_attention(asked: str, model: type[Any]) -> str:
    if asked not in ("auto", "flash_attention_2", "sdpa", "eager"):
        raise ValueError(
            f"attention of the text prior must be auto, flash_attention_2, sdpa or eager, not {asked!r}"
        )
    if asked not in ("auto", "flash_attention_2"):
        return asked
    lacking = [
        reason
        for reason, holds in (
            ("needs the flash-attn package", importlib.util.find_spec("flash_attn") is None),
            (_NEEDS_CUDA, not torch.cuda.is_available()),
            (f"is not available for {model.__name__}", not model._supports_flash_attn),
        )
        if holds
    ]
    if not lacking:
        return "flash_attention_2"
    if asked == "flash_attention_2":
        raise ValueError(f"flash_attention_2 {' and '.join(lacking)}; use attention=auto.")
    return "sdpa"


def _with_adapters(model: PreTrainedModel, projections: tuple[str, ...]) -> nn.Module:
    from peft import LoraConfig, inject_adapter_in_model  # takes seconds to import

    settings = LoraConfig(r=_LORA_RANK, lora_alpha=_LORA_ALPHA, target_modules=list(projections))
    return inject_adapter_in_model(settings, model)
