"""An argparse parser that names the option which a misspelt one may mean, and paths that cannot be empty."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Iterable
from itertools import takewhile
from pathlib import Path
from typing import Any, NoReturn

from bundle.exit_codes import NOT_STARTED

NO_DOCSTRINGS = (
    "PYTHONOPTIMIZE=2 (-OO) takes away docstrings that the package transformers reads; set it to 1, or to 0."
)


def path_of(text: str) -> Path:
    """A path of the command line. An empty one is that of a variable that is not set, and not the working directory."""
    if not text.strip():
        raise argparse.ArgumentTypeError("the path is empty; is a variable not set?")
    return Path(text)


class Parser(argparse.ArgumentParser):
    """Refuses unknown options before it asks for those that are missing."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self._given = list(sys.argv[1:] if args is None else args)
        found, rest = super().parse_known_args(args, namespace)
        if any(one.startswith("--") for one in rest):
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return found, rest

    def error(self, message: str) -> NoReturn:
        unknown = next(filter(self._is_unknown, self._options_given()), None)
        if unknown is not None:
            name = unknown.partition("=")[0]
            hint = _meant(name.replace("#", "-").replace("_", "-"), self._option_string_actions)
            message = f"unknown option {name}; {hint or f'see {self.prog} --help.'}"
        elif choice := re.search(r"invalid choice: '(.*)' \(choose from (.*)\)$", message):
            hint = _meant(choice[1], re.findall(r"[\w&-]+", choice[2]))
            message += f"; {hint}" if hint else ""
        # without the usage, which is longer than a screen
        self.exit(NOT_STARTED, f"{self.prog}: error: {message}\n")

    def _options_given(self) -> list[str]:
        """In front of a sub-command, or in all."""
        given: list[str] = getattr(self, "_given", [])
        if self._subparsers is not None:
            given = list(takewhile(lambda one: one.startswith("-"), given))
        end = given.index("--") if "--" in given else len(given)
        # argparse takes what has a space in it for a value
        return [one for one in given[:end] if one.startswith("--") and " " not in one.partition("=")[0]]

    def _is_unknown(self, option: str) -> bool:
        name = option.partition("=")[0]
        return not any(known.startswith(name) for known in self._option_string_actions)


def _meant(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {close[0]}?" if close else ""
