"""Prompts of a run: each text is read once, and its reader is told what the network did not take."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from threading import Lock
from weakref import WeakKeyDictionary

from bundle.cases.case import Case
from bundle.cases.modality import Modality
from bundle.cases.structures import Structures
from bundle.networks.prompt_reading import PromptReading
from bundle.networks.protocol import Segmenter
from bundle.wording import Request, exchange_sides, names_a_side, request_reader

_SHOWN = 20  # parts of a prompt that a warning names; the report has all


class PromptReader:
    """Reads each text once for each network, as long as the network's weights stay as they are.

    The workflow that runs the networks owns it. The text that was not used for longest is dropped first.

    Args:
        most_bytes: of text features that are kept.
    """

    def __init__(self, most_bytes: int = 1 << 27) -> None:
        self.most_bytes = most_bytes
        self._kept: WeakKeyDictionary[Segmenter, OrderedDict[str, PromptReading]] = WeakKeyDictionary()
        self._lock = Lock()

    def __call__(self, network: Segmenter, text: str, exchanged: bool = False) -> PromptReading:
        """The reading of a text; with `exchanged` also that of the text with left and right exchanged."""
        reading = self._read(network, text)
        return replace(reading, exchanged=self._read(network, exchange_sides(text))) if exchanged else reading

    def forget(self) -> None:
        """Read every text anew from now on, as after a change of weights."""
        self._kept.clear()

    def _read(self, network: Segmenter, text: str) -> PromptReading:
        with self._lock:  # a server's requests come in threads
            kept = self._kept.setdefault(network, OrderedDict())
            if text not in kept:
                kept[text] = network.read(text)
                while len(kept) > 1 and sum(map(_bytes, kept.values())) > self.most_bytes:
                    kept.popitem(last=False)
            kept.move_to_end(text)
            return kept[text]

    def __reduce__(self) -> tuple[type[PromptReader], tuple[int]]:
        """Another process reads with a network of its own."""
        return type(self), (self.most_bytes,)


def _bytes(reading: PromptReading) -> int:
    return 0 if reading.features is None else reading.features.tokens.nbytes


def side_notices(case: Case, reading: PromptReading) -> list[str]:
    """What was assumed of left and right in a prompt, where nothing says it."""
    if case.modality != "X-ray" or not names_a_side(reading.text):
        return []
    if not reading.means_patient:
        return [
            "Nothing says whose left and right the prompt means: the image's were taken; xray-sides patient takes the "
            "patient's."
        ]
    if not case.states_sides:
        return [
            "The film does not say where the patient's left is: it was taken to be shown as usual, the patient's right "
            "on the left of the image."
        ]
    return []


def asked_for(reading: PromptReading, text: str, request: Request, structures: Structures) -> PromptReading:
    """What a network makes of a prompt, where rules know what it asks for: names always count.

    Args:
        reading: of what the prompt affirms.
        text: the prompt as given.
        request: what the rules make of it.
        structures: of the network.
    """
    if not text.strip() or reading.features is None:
        return replace(reading, text=text)
    chooses = reading.channels is not None or not request.affirmed
    if not request.decided:
        if not request.learnt or not request.affirmed:
            reading = replace(reading, channels=() if chooses else None)
        missed = (text,) if reading.channels == () else ()
        return replace(reading, text=text, not_understood=missed)
    return replace(
        reading,
        text=text,
        channels=request.values(structures) if chooses else None,
        not_understood=request.not_understood,
        read_as=request.read_as,
    )


def prompt_warnings(reading: PromptReading, structures: Structures, modality: Modality) -> list[str]:
    """What a reader of a result should know of how its prompt was read."""
    warnings = []
    if reading.text and reading.features is None:
        warnings.append(
            "This network reads no text: the prompt is kept with the result but did not guide it."
        )
    if reading.cut_tokens:
        cut = reading.cut_tokens
        tokens = "1 token of the prompt was" if cut == 1 else f"{cut:,} tokens of the prompt were"
        warnings.append(
            f"{tokens} cut: it is longer than this network can read, and its end did not guide the result."
        )
    read_as = list(reading.read_as.items())
    warnings += [f"The prompt's {word!r} was read as {meant!r}." for word, meant in read_as[:_SHOWN]]
    known = structures.of_modality(modality)
    if reading.channels and reading.not_understood:
        missed = ", ".join(repr(part) for part in reading.not_understood[:_SHOWN])
        if len(reading.not_understood) > _SHOWN:
            missed += f" and {len(reading.not_understood) - _SHOWN:,} more"
        warnings.append(f"Not understood in the prompt: {missed}{_did_you_mean(reading, structures)}.")
    if reading.channels == ():
        names = ", ".join(known.values()) or "nothing"
        warnings.append(
            "The prompt names nothing that this network segments: the mask is empty. "
            f"On {modality} it knows {names}{_did_you_mean(reading, structures)}."
        )
    request = request_reader(structures)(reading.text)
    warnings += [
        f"The prompt names {' and '.join(sorted(parts))} alone: this network segments {name} only as a whole."
        for name, parts in request.halves(structures).items()
        if name in known.values() and reading.channels is not None
    ]
    elsewhere = [structures[value - 1] for value in reading.channels or () if value not in known]
    return warnings + [
        f"The prompt names {entry.name}, which this network segments on {entry.modality}, not on {modality}."
        for entry in elsewhere
        if not request.everything
    ]


def _did_you_mean(reading: PromptReading, structures: Structures) -> str:
    suggest = request_reader(structures).suggestions
    close = dict.fromkeys(name for part in reading.not_understood[:_SHOWN] for name in suggest(part))
    close = {name: None for name in close if structures.knows(name)}
    return f"; did you mean {' or '.join(close)}?" if close else ""
