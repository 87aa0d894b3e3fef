"""Published encoders from folders and hubs: whole or not at all, quietly, and nothing in their files is run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.utils import logging

from bundle.networks.weights import WeightsError


def find_pretrained(source: str | Path, what: str) -> str:
    """The folder, or the hub name.

    Args:
        what: it is, for the message, e.g. 'text encoder'.

    Raises:
        FileNotFoundError: it looks like a path and there is no such folder.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return str(path)
    # transformers calls a missing folder a malformed hub name
    if isinstance(source, Path) or source.startswith((".", "/", "~")):
        raise FileNotFoundError(f"{source}: no such folder with a {what}; download one or give a hub name.")
    return source


def load_pretrained(model: type[Any], source: str | Path, what: str, **options: Any) -> PreTrainedModel:
    """A model of transformers with all of its weights, in float32.

    Args:
        model: its class.
        source: folder or hub name. safetensors are preferred; from PyTorch's own files tensors alone are read.
        what: it is, for messages.
        options: of `from_pretrained`.

    Raises:
        FileNotFoundError: see `find_pretrained`.
        WeightsError: weights that cannot be read, or that leave tensors without a value.
    """
    found_source = find_pretrained(source, what)
    try:
        with quiet_transformers():
            loaded, found = model.from_pretrained(
                found_source,
                dtype=torch.float32,
                local_files_only=Path(found_source).is_dir(),
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                weights_only=True,
                **options,
            )
    except Exception as error:  # of a dozen kinds
        raise unreadable(found_source, what, "weights", error) from error
    # transformers only warns of tensors that are missing or of another shape, and leaves them random
    unfit = sorted([*found["missing_keys"], *(mismatch[0] for mismatch in found["mismatched_keys"])])
    if unfit:
        raise WeightsError(
            f"{source}: {len(unfit)} tensors are missing or of another shape, first {unfit[0]}; "
            f"give the weights of the {what} that is configured."
        )
    result: PreTrainedModel = loaded
    return result


def unreadable(source: str, what: str, part: str, error: Exception) -> WeightsError:
    """One sentence for a part of an encoder that transformers could not read."""
    if Path(source).is_dir():
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        return WeightsError(
            f"{source}: its {part} cannot be read ({reason}); a {what} needs config.json and model.safetensors, "
            "and a tokenizer if it reads text."
        )
    return WeightsError(
        f"{source}: is neither a folder nor a {what} that the hub gives; download it and give its folder."
    )


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars, and no lists of the tensors of heads that are not needed."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
