"""What a node receives series from, and what it delivers results to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

# PS3.5 chapter 9, without the rule about leading zeros, which archives break.
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_LONGEST_UID = 64


class SettingError(Exception):
    """An option or a variable of the environment that a node cannot work with, in one sentence."""


class ServerError(Exception):
    """Another system could not be reached or did not do its part, in one sentence; later it may.

    The sentence holds neither addresses with queries nor credentials nor what a library said of them.
    """


@dataclass(frozen=True)
class ArrivedSeries:
    """A series as far as it has arrived.

    Attributes:
        study, series: StudyInstanceUID and SeriesInstanceUID.
        instances: how many there are by now.
    """

    study: str
    series: str
    instances: int

    def __post_init__(self) -> None:
        for uid in (self.study, self.series):
            if not is_uid(uid):
                raise ValueError("not a UID")


class Source(Protocol):
    """Where series come from."""

    def studies(self) -> Mapping[str, Sequence[ArrivedSeries]]:
        """StudyInstanceUID -> its series that may be segmented, as far as they have arrived.

        Raises:
            ServerError: the source cannot be asked.
        """

    def fetch(self, series: ArrivedSeries) -> Path:
        """A folder with the files of a series.

        Raises:
            ServerError: they cannot be had now.
        """

    def reports(self, study: str) -> Sequence[Path]:
        """Files of the reports of a study, as far as they have arrived; none where they are not to be had from it.

        Raises:
            ServerError: they cannot be had now.
        """

    def grew(self, series: ArrivedSeries) -> bool:
        """Whether more of a series has arrived since it was fetched.

        Raises:
            ServerError: the source cannot be asked.
        """

    def put_back(self, series: ArrivedSeries) -> None:
        """Let go of a fetched series, which will be fetched again."""

    def discard(self, series: ArrivedSeries) -> None:
        """Let go of a series for good; it may not have been fetched."""


class Destination(Protocol):
    """Where results go."""

    def deliver(self, files: Sequence[Path]) -> None:
        """Hand over DICOM files; those that are there already are not stored a second time.

        Raises:
            ServerError: not all of them are there now.
        """


def is_uid(text: str) -> bool:
    """Whether a text from another system may be used as a UID, and so as a name of a file."""
    return len(text) <= _LONGEST_UID and _UID.fullmatch(text) is not None
