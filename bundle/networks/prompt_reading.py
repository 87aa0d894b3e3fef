"""What a network makes of a prompt, read once however many images it goes with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TypeVar

from torch import Tensor

from bundle.networks.naming import named_channels
from bundle.networks.text_prior import TextFeatures


@dataclass(frozen=True, eq=False)
class PromptReading:
    """What a network makes of a prompt.

    Attributes:
        text: the prompt as given; '' for none.
        features: of this one prompt; None for a network that reads no text.
        channels: of the mask, those of the structures that the prompt names; None where it chooses nothing.
        cut_tokens: tokens at the end of the prompt that the network cannot take.
        not_understood: parts of the prompt that name nothing the network knows.
        read_as: words with typing errors -> what they were read as.
        exchanged: the reading of the same text with left and right exchanged; None where no one asked for it.
        means_patient: left and right in the text are the patient's, not the image's.
    """

    text: str
    features: TextFeatures | None = None
    channels: tuple[int, ...] | None = None
    cut_tokens: int = 0
    not_understood: tuple[str, ...] = ()
    read_as: Mapping[str, str] = field(default_factory=dict)
    exchanged: PromptReading | None = None
    means_patient: bool = False

    @classmethod
    def of(cls, text: str, features: TextFeatures, log_odds: Tensor | None, cut_tokens: int) -> PromptReading:
        """What a text prior makes of one text.

        Args:
            log_odds: (1, structures) that the text names each; None for a network that names none.
        """
        channels = None if log_odds is None or not text.strip() else tuple(named_channels(log_odds[0]))
        return cls(text, features, channels, cut_tokens, (text,) if channels == () else ())

    def named(self, known: Mapping[int, str]) -> dict[int, str]:
        """Those of the channels of an image, name by channel, that were asked for."""
        return {
            channel: name
            for channel, name in known.items()
            if self.channels is None or channel in self.channels
        }


#: As written, or as read.
Prompts = Sequence[str] | Sequence[PromptReading]
_Prompt = TypeVar("_Prompt", bound=str | PromptReading)


def one_each(prompts: Sequence[_Prompt] | None, images: int) -> Sequence[_Prompt | str]:
    """The prompts of a batch of images; empty ones where there are none.

    Raises:
        ValueError: another number of prompts than of images.
    """
    if prompts is None:
        return [""] * images
    if len(prompts) != images:
        raise ValueError(f"{images} images came with {len(prompts)} prompts")
    return prompts


def batched_features(
    prompts: Prompts | None, images: int, read: Callable[[str], PromptReading]
) -> TextFeatures | None:
    """Text features of a batch of images; None for a network that reads no text.

    Args:
        read: a text, of those that are still to be read; each distinct one once.
    """
    read = cache(read)
    readings = [read(one) if isinstance(one, str) else one for one in one_each(prompts, images)]
    features = [reading.features for reading in readings if reading.features is not None]
    return TextFeatures.joined(features) if features else None
