"""What `python -m monai.bundle run` lacks: it refuses unknown overrides, and what cannot start ends in one sentence."""

from __future__ import annotations

import ast
import difflib
import json
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from monai.bundle import ConfigParser

from bundle.commands.parser import NO_DOCSTRINGS
from bundle.exit_codes import INTERRUPTED, NOT_STARTED
from bundle.root import ROOT

_ALIKE = 0.75  # of difflib's ratio, of ids of files
_SECTIONS = frozenset(("imports", "initialize", "run", "finalize"))
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
        from bundle.commands.streams import endure

        arguments = sys.argv[1:]
        endure()
        sys.excepthook = _exit_with_sentence
        if sys.flags.optimize > 1:
            fail(NO_DOCSTRINGS)
    given = _named_arguments(arguments)
    overrides = _overrides(given)
    files = _config_files(given.get("config_file"), given.get("args_file"))
    if not files:
        return
    config = ConfigParser.load_config_files(files)
    known = _known_ids(config)
    check_files(files)
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
    root = given.get("bundle_root") or config.get("bundle_root", ROOT)
    if _is_bundle_command() and not Path(str(root), "configs").is_dir():
        fail(
            f"{Path(str(root)).absolute()}: is not the folder of the bundle; "
            f"run in {ROOT}, or give it as --bundle_root."
        )


def check_files(files: Sequence[Path | str]) -> None:
    """Refuse a further configuration file that sets what nothing reads, as a misspelt setting.

    Args:
        files: in their order; the first one says what there is, and the bundle's own are not looked at.

    Raises:
        SystemExit: 2, with the sentence on standard error.
    """
    contents = [ConfigParser.load_config_file(str(path)) for path in files]
    text = json.dumps(contents, default=str)
    known = _known_ids(contents[0])
    groups = {name for name, value in contents[0].items() if _is_group(value)}
    for path, content in zip(files[1:], contents[1:], strict=True):
        if not Path(path).resolve().is_relative_to(ROOT / "configs"):
            unread = [
                name
                for name in _settings_in(content, groups)
                if not _is_read(name, known, groups, text) and name not in _own_ids()
            ]
            for name in unread:
                # what is like nothing that there is may be for a file to come
                if close := _nearest(name, known, _ALIKE):
                    fail(f"{path}: nothing reads the setting {name}; did you mean {close}?")
        known |= _known_ids(content)


@cache
def _own_ids() -> frozenset[str]:
    """Of all the bundle's files: who copies one takes over what another one reads."""
    files = [path for path in (ROOT / "configs").glob("*.yaml") if path.stem != "structures"]
    return frozenset(key.lstrip("+~") for path in files for key in ConfigParser.load_config_file(str(path)))


def _is_group(content: Any) -> bool:
    """Several settings under one id, such as ct, and nothing else."""
    return (
        isinstance(content, dict)
        and "_target_" not in content
        and not any(isinstance(one, dict) for one in content.values())
    )


def _settings_in(content: Mapping[str, Any], groups: set[str]) -> Iterator[str]:
    """Ids that a file sets, of groups of settings each by itself."""
    for key, value in content.items():
        name = key.lstrip("+~").replace("::", "#")
        yield name
        if name in groups and isinstance(value, dict):
            yield from (f"{name}#{one}" for one in value)


def _is_read(name: str, known: set[str], groups: set[str], text: str) -> bool:
    top, _, rest = name.partition("#")
    if name in known or name.startswith("_") or top in _SECTIONS:
        return True
    if rest:
        # a component may have arguments that no file has given yet
        return top not in groups and top in known
    return re.search(rf"[@%]{re.escape(top)}\b", text) is not None


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


def _nearest(name: str, known: set[str], cutoff: float = 0.6) -> str | None:
    """The id that an unknown one may mean: a nested one that was written flat, or one that is spelt alike."""
    inside = sorted(item for item in known if item.count("#") == 1 and item.endswith(f"#{name}"))
    flat = {item.replace("#", "_"): item for item in known if not item.startswith("_")}
    if name in flat or inside:
        return flat.get(name) or inside[0]
    alike = {
        item: item
        for item in sorted(known)
        if item.count("#") == name.count("#") and not item.startswith("_")
    }
    # 'ouput' means output_dir, not input
    words = {item.partition("_")[0]: item for item in alike if "#" not in name}
    close = difflib.get_close_matches(name, {**words, **alike}, 1, cutoff)
    return {**words, **alike}[close[0]] if close else None


def _config_files(config_file: str | None, args_file: str | None) -> list[str]:
    """The configuration files of the command; none where they cannot be told."""
    if not config_file and args_file:
        config_file = ConfigParser.load_config_file(args_file).get("config_file")
    files: Any = config_file or []
    if isinstance(files, str):
        files = ast.literal_eval(files) if files.lstrip().startswith("[") else files.split(",")
    return [str(one) for one in files]


def _known_ids(config: Mapping[str, Any]) -> set[str]:
    """Every id of a configuration, nested ones joined by '#'."""
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
