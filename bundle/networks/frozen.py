"""Encoders that a network uses and does not train: shared, never averaged, and not part of its weights.

Published encoders are large (the image DDPM of TextDiff has 553M parameters, the network around it 10M). A
weights file that repeated them would be 60 times as large; it keeps their fingerprint instead, so that it is
refused beside other encoders than it was trained with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bundle.networks.weights import WeightsError


class Frozen(nn.Module):
    """A module that stays as it is: evaluation mode, no gradients for its weights, no entries in state dicts.

    It follows its owner to another device. Gradients still flow through it to what was put in. Copies, such
    as the one that averages weights, share it. In its place the state dict holds 'fingerprint', which must
    agree when weights are loaded.

    Args:
        module: the encoder; it is put into evaluation mode.
        name: what to call it when weights do not fit it, e.g. 'image DDPM'.
        reading: how the owner uses it where that changes what it says, such as which layers are read.
    """

    fingerprint: Tensor

    def __init__(self, module: nn.Module, name: str, reading: str = "") -> None:
        super().__init__()
        self.name = name
        # in a tuple it is no submodule: parameters(), state_dict(), train() and copies pass it by
        self._held = (module.eval().requires_grad_(False),)
        self.register_buffer("fingerprint", fingerprint(module, reading))

    @property
    def module(self) -> nn.Module:
        return self._held[0]

    @property
    def digest(self) -> str:
        """The fingerprint as hexadecimal digits, to name files by."""
        return bytes(self.fingerprint.tolist()).hex()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Frozen:
        self.module._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def __deepcopy__(self, memo: dict[int, Any]) -> Frozen:
        return self

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        given = state_dict.get(f"{prefix}fingerprint")
        if given is not None and not torch.equal(given.cpu(), self.fingerprint.cpu()):
            raise WeightsError(
                f"the weights were trained beside another {self.name}, or one that is read otherwise; "
                f"configure the {self.name} that they belong to."
            )
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)  # type: ignore[arg-type]


def fingerprint(module: nn.Module, reading: str = "") -> Tensor:
    """(32,) uint8: SHA-256 over names, shapes and values of all weights, and how they are read."""
    digest = hashlib.sha256(reading.encode())
    for name, tensor in sorted(module.state_dict().items()):
        # a layout without weights has no values
        values = b"" if tensor.is_meta else tensor.detach().cpu().float().contiguous().numpy().tobytes()
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode() + values)
    return torch.tensor(list(digest.digest()), dtype=torch.uint8)
