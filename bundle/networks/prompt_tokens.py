"""From a prompt to token ids; what a text encoder and an exported graph of it share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from bundle.networks.pretrained import quiet_transformers, unreadable


@dataclass(frozen=True)
class PromptTokens:
    """Token ids of prompts. Words that look like special tokens ('[MASK]', '</s>') are words.

    Attributes:
        tokenizer: of the encoder.
        max_tokens: the most that are kept of a prompt, special ones included.
    """

    tokenizer: PreTrainedTokenizerBase
    max_tokens: int

    def ids(self, prompt: str) -> Tensor:
        """(length,) int64; a longer prompt is cut before its last special token."""
        ids = self._all_ids(prompt)
        if len(ids) > self.max_tokens:
            ids = [*ids[: self.max_tokens - 1], ids[-1]]
        return torch.tensor(ids)

    def cut(self, prompt: str) -> int:
        """How many tokens at the end of a prompt are left out; 0 for all but very long ones."""
        return max(0, len(self._all_ids(prompt)) - self.max_tokens)

    def _all_ids(self, prompt: str) -> list[int]:
        # text from a command line may hold halves of characters, which tokenizers do not take
        text = prompt.encode("utf-8", "replace").decode("utf-8")
        ids: list[int] = self.tokenizer(text, split_special_tokens=True, verbose=False)["input_ids"]
        return ids


def load_tokenizer(source: str, what: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or of a hub name.

    Args:
        what: it belongs to, for messages.

    Raises:
        WeightsError: it cannot be read.
    """
    local = Path(source).is_dir()
    # taken as it is: a class chosen by config.json rebuilds it, in parts otherwise than it was trained
    whole = local and (Path(source) / "tokenizer.json").is_file()
    kind = PreTrainedTokenizerFast if whole else AutoTokenizer
    try:
        with quiet_transformers():
            return kind.from_pretrained(source, local_files_only=local, trust_remote_code=False)
    except Exception as error:  # of a dozen kinds
        raise unreadable(source, what, "tokenizer", error) from error
