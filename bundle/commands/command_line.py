"""What `python -m monai.bundle run` lacks: it refuses unknown overrides, and what cannot start ends in one sentence."""

from __future__ import annotations

import ast
import difflib
import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, NoReturn

from monai.bundle import ConfigParser

from bundle.exit_codes import INTERRUPTED, NOT_STARTED

NOTHING_YET = "interrupted before anything was segmented."
#: Arguments of `monai.bundle run` itself.
_RUNNER_ARGUMENTS = frozenset(
    {
        "run_id",
        "init_id",
        "final_id",
        "meta_file",
        "config_file",
        "logging_file",
        "tracking",
        "args_file",
        "workflow_type",
        "properties_path",
    }
)
_has_started = False
#: What the command line takes for a string, and a string counts as true.
_YAML_WORDS = {"true": "True", "false": "False", "null": "None"}


def check_overrides(arguments: Sequence[str] | None = None) -> None:
    """Refuse overrides that would not do what they say, and arrange for exit code 2 until `started` is called.

    `monai.bundle run` takes a misspelt override for a new item and goes on without it, and a lower-case false for a
    word, which counts as true. This runs among a
    configuration's first expressions; in a process that is not `python -m monai.bundle` it does nothing.

    Args:
        arguments: of the command, for tests; default those of this process.

    Raises:
        SystemExit: 2, with the sentence on standard error.
    """
    if arguments is None:
        if not _is_bundle_command():
            return
        arguments = sys.argv[1:]
        sys.excepthook = _exit_with_sentence
    given = _named_arguments(arguments)
    overrides = _overrides(given)
    known = _known_ids(given.get("config_file"), given.get("args_file"))
    if known is None:
        return
    for name in overrides:
        if name.replace("::", "#") not in known:
            close = _nearest(name, known)
            hint = (
                f"did you mean --{close}?" if close else "see the ids at the top of the configuration file."
            )
            fail(f"unknown override --{name}; {hint}")
        if given[name] in _YAML_WORDS:
            fail(
                f"--{name} {given[name]}: would be taken for a word; write {_YAML_WORDS[given[name]]} "
                "on the command line."
            )


def overridden() -> list[str]:
    """Ids that the command line of `python -m monai.bundle` sets; none in another process."""
    if not _is_bundle_command():
        return []
    given = _named_arguments(sys.argv[1:])
    listed = ConfigParser.load_config_file(given["args_file"]) if given.get("args_file") else {}
    return [name.replace("::", "#") for name in _overrides({**listed, **given})]


def _overrides(given: Iterable[str]) -> list[str]:
    return [name for name in given if name not in _RUNNER_ARGUMENTS]


def started() -> None:
    """From here on an unexpected error is a crash with its traceback, not a command that could not start."""
    global _has_started
    _has_started = True
    if sys.excepthook is _exit_with_sentence:
        sys.excepthook = sys.__excepthook__


def not_started() -> None:
    """Before a workflow is prepared in this process; see `has_started`."""
    global _has_started
    _has_started = False


def has_started() -> bool:
    """Whether `started` was called since `not_started`."""
    return _has_started


def fail(sentence: str) -> NoReturn:
    """Say why nothing could be started and leave with exit code 2."""
    print(f"error: {sentence}", file=sys.stderr)
    raise SystemExit(NOT_STARTED)


def sentence_for(error: BaseException) -> str:
    """One line for an error: its own words, or its kind where it has none."""
    from bundle.cases.errors import root_cause
    from bundle.networks.weights import WeightsError

    cause = root_cause(error, WeightsError)
    text = " ".join(str(cause).split())
    text = text or type(cause).__name__
    return text if text.endswith((".", "?", "!")) else f"{text}."


def _is_bundle_command() -> bool:
    main = sys.modules.get("__main__")
    specification = getattr(main, "__spec__", None)
    return specification is not None and specification.name.startswith("monai.bundle")


def _named_arguments(arguments: Sequence[str]) -> dict[str, str]:
    """`--name value` and `--name=value`; names as `fire` reads them."""
    named: dict[str, str] = {}
    for position, argument in enumerate(arguments):
        if not argument.startswith("--") or len(argument) < 3:
            continue
        name, equals, value = argument[2:].partition("=")
        if not equals:
            following = arguments[position + 1 : position + 2]
            value = following[0] if following and not following[0].startswith("--") else ""
        named[name.replace("-", "_")] = value
    return named


def _nearest(name: str, known: set[str]) -> str | None:
    """The id that an unknown one may mean: a nested one that was written flat, or one that is spelt alike."""
    inside = sorted(item for item in known if item.count("#") == 1 and item.endswith(f"#{name}"))
    flat = {item.replace("#", "_"): item for item in known if not item.startswith("_")}
    if name in flat or inside:
        return flat.get(name) or inside[0]
    top = sorted(item for item in known if "#" not in item and not item.startswith("_"))
    close = difflib.get_close_matches(name, top, n=1)
    return close[0] if close else None


def _known_ids(config_file: str | None, args_file: str | None) -> set[str] | None:
    """Every id of the merged configuration files, nested ones joined by '#'; None where they cannot be told."""
    if not config_file and args_file:
        config_file = ConfigParser.load_config_file(args_file).get("config_file")
    if not config_file:
        return None
    files: Any = config_file
    if isinstance(files, str) and files.lstrip().startswith("["):
        files = ast.literal_eval(files)
    config = ConfigParser.load_config_files(files)
    ids = {"_meta_"}

    def visit(content: Any, prefix: str) -> None:
        entries = content.items() if isinstance(content, dict) else enumerate(content)
        for key, value in entries:
            name = f"{prefix}{str(key).lstrip('+~')}"
            ids.add(name)
            if isinstance(value, dict | list):
                visit(value, f"{name}#")

    visit(config, "")
    return ids


def _exit_with_sentence(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print(NOTHING_YET, file=sys.stderr, flush=True)
        os._exit(INTERRUPTED)
    if os.environ.get("BUNDLE_DEBUG"):
        traceback.print_exception(kind, error, trace)
    print(f"error: {sentence_for(error)}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    # an exception hook cannot set the exit code, and nothing has begun that would need an orderly end
    os._exit(NOT_STARTED)
