"""Films as radiologists look at them: the patient's right on the left, the head above."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.transforms import InvertibleTransform, MapTransform

from bundle.cases.case import FilmTurn


class TurnFilmd(MapTransform, InvertibleTransform):
    """Turn films by the `FilmTurn` that their meta has under 'film_turn'; the inverse turns results back.

    Networks know films as they are usually shown. Without that entry nothing is done.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            turn: FilmTurn | None = item[key].meta.get("film_turn")
            if turn is not None:
                image = item[key].transpose(-2, -1) if turn.transposed else item[key]
                item[key] = _flipped(image, turn)
        return item

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            turn: FilmTurn | None = item[key].meta.get("film_turn")
            if turn is not None:
                image = _flipped(item[key], turn)
                item[key] = image.transpose(-2, -1) if turn.transposed else image
        return item


def _flipped(image: Any, turn: FilmTurn) -> Any:
    axes = [axis for axis, flip in ((-1, turn.mirrored), (-2, turn.upside_down)) if flip]
    return torch.flip(image, axes) if axes else image
