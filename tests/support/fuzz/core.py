"""One input after the other: a good file, a few of its header's fields changed at random, read by the bundle and by
another reader. The outcome must be the same image in the same place, or a sentence."""

from __future__ import annotations

import math
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bundle.cases import CaseError, collect, read_case
from bundle.cases.case import Case
from bundle.cases.hounsfield import NO_HU

Fields = dict[str, Any]
HOW_MANY = (0, 1, 1, 1, 2, 2, 3, 4)
# Of the shortest voxel edge, how far a corner may lie from where another reader puts it.
_CORNER = 0.02
# Of white: a step of 8 bits.
_LEVEL = 1 / 255
# What readers say of values, not of headers.
_OF_VALUES = (NO_HU, "has the same value")


@dataclass(frozen=True)
class Truth:
    """What another reader, or the standard itself, makes of a file.

    Attributes:
        array: (X, Y, Z) in HU, or (C, H, W) from 0, black, to 1, white; None where the file makes no sense.
        affine: (4, 4), RAS+; None for pictures.
        is_clear: whether the file can mean nothing else; where it can, a warning is wanted.
        turned: of films, what brings them to where they are usually shown, where their header says so: the array as it
            should come out.
    """

    array: NDArray[Any] | None
    affine: NDArray[np.float64] | None = None
    is_clear: bool = True
    turned: NDArray[Any] | None = None


#: A file that makes no sense: a sentence is wanted, or at least a warning.
NONSENSE = Truth(None)
#: A file of which nothing is known but that reading it must not end the process.
ANYTHING = Truth(np.empty(0))


class Format(NamedTuple):
    """A kind of file.

    Attributes:
        fields: name -> value of a file that is as it should be.
        changes: name -> values that it may get instead; callables make one.
        write: makes the file or files in a folder.
        truth: what they are.
    """

    name: str
    fields: Fields
    changes: Mapping[str, Sequence[Any]]
    write: Callable[[Path, Fields], None]
    truth: Callable[[Path, Fields], Truth]


@dataclass
class Tally:
    """Outcomes of many inputs."""

    outcomes: Counter[str] = field(default_factory=Counter)
    disagreements: list[tuple[int, Fields, str]] = field(default_factory=list)

    @property
    def inputs(self) -> int:
        return self.outcomes.total() - self.outcomes["not written"]


def changed(kind: Format, seed: int) -> Fields:
    """What a seed changes."""
    rng = random.Random(f"{kind.name} {seed}")
    names = rng.sample(sorted(kind.changes), min(rng.choice(HOW_MANY), len(kind.changes)))
    found = {}
    for name in names:
        value = rng.choice(kind.changes[name])
        found[name] = value(rng) if callable(value) else value
    return found


def outcome(kind: Format, changes: Fields) -> tuple[str, str]:
    """'same', 'sentence', 'said' (a warning) or 'disagreement', and what of it."""
    folder = Path(tempfile.mkdtemp())
    try:
        fields = {**kind.fields, **changes}
        try:
            kind.write(folder, fields)
        except Exception:
            return "not written", ""  # what no writer makes either
        truth = kind.truth(folder, fields)
        try:
            found = collect(folder)
            if found.failures:
                return "sentence", found.failures[0].error
            if len(found.references) != 1:
                return "sentence", f"{len(found.references)} cases"
            case = read_case(found.references[0])
        except CaseError as error:
            return "sentence", str(error).replace(str(folder), "")
        except Exception as error:
            return "disagreement", f"{type(error).__name__}: {error}"
        return _compared(case, truth)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _compared(case: Case, truth: Truth) -> tuple[str, str]:
    if truth is ANYTHING:
        return "same", ""
    words = [one for one in case.warnings if not any(usual in one for usual in _OF_VALUES)]
    if truth.array is None or not truth.is_clear:
        told = "said" if words else "disagreement"
        if truth.array is None or told == "said":
            return told, " ".join(words) or "makes no sense, and was read without a word"
        return told, "can mean more than one thing, and was read without a word"
    wrong = _wrong_place(case, truth) or _wrong_values(case, truth, bool(words))
    return ("disagreement", wrong) if wrong else ("same", "")


def _wrong_place(case: Case, truth: Truth) -> str:
    if truth.affine is None or case.affine is None:
        return "" if truth.affine is case.affine else "one is a volume, the other a picture"
    shape = case.array.shape[1:]
    if truth.array is not None and truth.array.shape != shape:
        return f"the shape is {shape}, and {truth.array.shape} by the other reader"
    corners = np.array([(x, y, z, 1) for x in (0, shape[0]) for y in (0, shape[1]) for z in (0, shape[2])])
    apart = np.linalg.norm(corners @ (truth.affine - case.affine).T, axis=1).max()
    edge = np.linalg.norm(truth.affine[:3, :3], axis=0).min()
    return f"lies {apart:.3g} mm elsewhere" if not apart <= _CORNER * edge + 1e-3 else ""


def _wrong_values(case: Case, truth: Truth, said: bool) -> str:
    values, other = case.array, truth.array
    assert other is not None
    if truth.affine is not None:
        values, scale = case.array[0], float(np.abs(other).max())
        close = np.allclose(values, other, rtol=1e-5, atol=1e-6 * scale + 1e-6)
        return "" if close else f"has other values: {_some(values)} for {_some(other)}"
    if values.shape[-2:] != other.shape[-2:]:
        return f"the shape is {values.shape}, and {other.shape} by the other reader"
    if len(values) != len(other):
        values, other = values.mean(axis=0, keepdims=True), other.mean(axis=0, keepdims=True)
    shown = values / (case.full_scale or 1.0)
    if truth.turned is not None and np.ptp(truth.turned):
        turn = case.film_turn
        upright = shown
        if turn is not None:
            upright = upright.swapaxes(1, 2) if turn.transposed else upright
            upright = upright[..., ::-1] if turn.mirrored else upright
            upright = upright[:, ::-1] if turn.upside_down else upright
        if upright.shape != truth.turned.shape or _correlation(upright, truth.turned) < 0.9:
            return "is turned to another side"
    # A window that hides the image is left out and said to be: what it would show has little left to compare.
    if _correlation(shown, other) < (-0.5 if said else 0.5):
        return f"has another polarity or other pixels: {_some(shown)} for {_some(other)}"
    if not said and not np.allclose(shown, other, atol=_LEVEL):
        return f"has other values: {_some(shown)} for {_some(other)}"
    return ""


def _correlation(one: NDArray[Any], other: NDArray[Any]) -> float:
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 1.0 if np.ptp(one) == np.ptp(other) else 0.0
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def _some(values: NDArray[Any]) -> str:
    return ", ".join(f"{value:.5g}" for value in np.asarray(values).ravel()[:4])


def smallest(kind: Format, changes: Fields) -> Fields:
    """As few of the changes as still give a disagreement."""
    for name in list(changes):
        fewer = {key: value for key, value in changes.items() if key != name}
        if outcome(kind, fewer)[0] == "disagreement":
            changes = fewer
    return changes


def fuzz(kind: Format, seeds: Iterator[int], seconds: float = math.inf) -> Tally:
    """Try seed after seed until there are none, or the time is over."""
    tally = Tally()
    end = time.monotonic() + seconds
    for seed in seeds:
        changes = changed(kind, seed)
        result, words = outcome(kind, changes)
        tally.outcomes[result] += 1
        if result == "disagreement":
            few = smallest(kind, changes)
            tally.disagreements.append((seed, few, outcome(kind, few)[1]))
        if time.monotonic() > end:
            break
    return tally


# --- geometry ----------------------------------------------------------------------------------------------------


def rotation(rng: random.Random) -> NDArray[np.float64]:
    """A proper or improper rotation: axes exchanged and turned round, and sometimes oblique."""
    matrix = np.eye(3)[rng.sample(range(3), 3)] * [rng.choice((-1, 1)) for _ in range(3)]
    if rng.random() < 0.5:
        return matrix
    a, b = (rng.uniform(-0.4, 0.4) for _ in range(2))
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    return np.asarray(about_z @ about_x @ matrix)


def spacing(rng: random.Random) -> tuple[float, ...]:
    return tuple(round(rng.uniform(0.5, 5), 4) for _ in range(3))


def origin(rng: random.Random) -> tuple[float, ...]:
    return tuple(round(rng.uniform(-300, 300), 3) for _ in range(3))
