"""The small text encoder that the bundle brings along, before it has learnt anything: its tokenizer and its weights."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import (
    BertConfig,
    BertForMaskedLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

Architecture = Literal["modernbert", "bert"]
SPECIAL_TOKENS = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}


@dataclass(frozen=True)
class EncoderSize:
    """Of the encoder; the defaults make a folder of about 2 MB.

    Attributes:
        vocabulary: tokens at most, among them 256 bytes and the special ones.
        width, layers, heads, intermediate: as in the configurations of transformers.
        local_attention: window of ModernBERT's local layers in tokens.
        dropout: of embeddings, attention and feed-forward layers.
    """

    vocabulary: int = 3000
    width: int = 128
    layers: int = 4
    heads: int = 4
    intermediate: int = 256
    local_attention: int = 128
    dropout: float = 0.0


def train_tokenizer(texts: Iterator[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE without upper case: any text in any script has tokens, none is unknown."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=list(SPECIAL_TOKENS.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    cls, sep = SPECIAL_TOKENS["cls"], SPECIAL_TOKENS["sep"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (cls, sep)],
    )
    return wrapped(tokenizer)


def wrapped(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    names = {f"{role}_token": token for role, token in SPECIAL_TOKENS.items()}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def name_tokenizer(path: Path) -> None:
    """Give the tokenizer's class the name that every version of transformers knows."""
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def make_encoder(
    architecture: Architecture, size: EncoderSize, tokenizer: PreTrainedTokenizerFast
) -> PreTrainedModel:
    """A masked-language model with random weights.

    Raises:
        ValueError: unknown architecture.
    """
    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": size.width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "intermediate_size": size.intermediate,
        "pad_token_id": tokenizer.pad_token_id,
        "cls_token_id": tokenizer.cls_token_id,
        "sep_token_id": tokenizer.sep_token_id,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
    }
    if architecture == "modernbert":
        return ModernBertForMaskedLM(
            ModernBertConfig(
                **settings,
                max_position_embeddings=8192,
                local_attention=size.local_attention,
                embedding_dropout=size.dropout,
                attention_dropout=size.dropout,
                mlp_dropout=size.dropout,
            )
        )
    if architecture == "bert":
        model = BertForMaskedLM(
            BertConfig(
                **settings,
                max_position_embeddings=512,
                type_vocab_size=1,
                hidden_dropout_prob=size.dropout,
                attention_probs_dropout_prob=size.dropout,
            )
        )
        with torch.no_grad():
            model.base_model.embeddings.position_embeddings.weight.copy_(sinusoids(512, size.width))
        return model
    raise ValueError(f"architecture must be modernbert or bert, not {architecture!r}")


def sinusoids(positions: int, width: int, scale: float = 0.1) -> Tensor:
    """(positions, width): where BERT's learned positions start (Vaswani et al. 2017, sec. 3.5).

    From random ones a small encoder stays a bag of words for thousands of steps: which side goes with which zone
    is a matter of order alone.
    """
    rates = torch.exp(-math.log(1e4) * torch.arange(0, width, 2) / width)
    angles = torch.arange(positions)[:, None] * rates
    return scale * torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
