"""Options of the command line, made from the configuration files: their ids, defaults and comments.

Nothing here needs torch or MONAI, so that `--help` and wrong options are answered at once.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from bundle.commands.parser import path_of
from bundle.root import CONFIGS, MODELS, ROOT

if TYPE_CHECKING:
    from monai.bundle import ConfigWorkflow

    from bundle.inference import CaseList

INFERENCE = CONFIGS / "inference.yaml"
#: Further spellings of options.
_SPELLINGS = {"dicom_rtstruct": "--rtstruct", "xray#photometric": "--photometric"}
#: What every command gives in a way of its own.
_BY_HAND = frozenset(
    ("bundle_root", "input", "output_dir", "dataset_dir", "prompt_file", "datalist", "device", "weights")
    + ("series", "export", "overridden")
)
_EXPRESSION = ("$", "@", "%")
_DEST = "setting:"
_SECTION = re.compile(r"# --- (.+?) -+$")
_LINE = re.compile(r"( {0,2})([A-Za-z_]\w*(?:#\w+)*):(.*)$")
_COMMENT = re.compile(r"(?:^|\s)#\s+(.*)$")
_CHOICES = re.compile(r"((?:[\w&-]+ \| )+[\w&-]+)")


@dataclass(frozen=True)
class Setting:
    """A setting that an option can change.

    Attributes:
        id: in the configuration; of nested ones with '#'.
        default: as YAML has it.
        section: heading above it.
        about: its comment. Words with ' | ' between them at its beginning are all the values that there are.
    """

    id: str
    default: Any
    section: str
    about: str

    @property
    def option(self) -> str:
        return "--" + self.id.replace("#", "-").replace("_", "-")


def settings_in(files: Iterable[Path]) -> list[Setting]:
    """What a user can set in configuration files; of several that have it the last one's default counts."""
    found: dict[str, Setting] = {}
    groups: set[str] = set()
    for path in files:
        for setting in _read(path, groups):
            known = found.get(setting.id, setting)
            about = setting.about or known.about
            found[setting.id] = replace(known, default=setting.default, about=about)
    return [setting for setting in found.values() if setting.id not in _BY_HAND]


def _read(path: Path, groups: set[str]) -> Iterator[Setting]:
    """The settings of a file; `groups` has the ids that hold several, of this file too in the end."""
    text = path.read_text(encoding="utf-8")
    content = yaml.safe_load(text) or {}
    section, group = path.name, ""
    for line in text.splitlines():
        if heading := _SECTION.match(line):
            section = heading[1]
        if not (match := _LINE.match(line)):
            continue
        indent, name, rest = match.groups()
        comment = _COMMENT.search(rest)
        about = comment[1] if comment else ""
        if not indent:
            group = name
            value = content[name]
            is_group = isinstance(value, dict) and (not rest.strip() or rest.strip().startswith("#"))
            if is_group and _is_setting(value, ""):
                groups.add(name)
            elif (
                not is_group
                and _is_setting(value, about)
                and ("#" not in name or name.split("#")[0] in groups)
            ):
                yield Setting(name, value, section, about)
        elif group in groups:
            yield Setting(f"{group}#{name}", content[group][name], section, about)


def _is_setting(value: Any, about: str) -> bool:
    """Data, or an expression that stands for data, which a comment tells of."""
    if isinstance(value, dict):
        return "_target_" not in value and all(_is_setting(one, "") for one in value.values())
    if isinstance(value, list):
        return all(_is_setting(one, "") for one in value)
    return bool(about) or not (isinstance(value, str) and value.startswith(_EXPRESSION))


def add_settings(
    command: argparse.ArgumentParser, files: Iterable[Path], left_out: Iterable[str] = ()
) -> None:
    """Give a command an option for each setting of configuration files, under the headings of these.

    Args:
        left_out: ids that the command does not offer.
    """
    groups: dict[str, Any] = {}
    for setting in settings_in(files):
        if setting.id in left_out:
            continue
        if setting.section not in groups:
            groups[setting.section] = command.add_argument_group(setting.section)
        names = [setting.option, *([_SPELLINGS[setting.id]] if setting.id in _SPELLINGS else [])]
        groups[setting.section].add_argument(*names, dest=_DEST + setting.id, **_kind(setting))


def _kind(setting: Setting) -> dict[str, Any]:
    """How argparse reads a setting's values."""
    default, about = setting.default, setting.about
    choices = _CHOICES.match(about)
    shown = [about[choices.end() :].lstrip("; ") if choices else about]
    if (
        default not in (None, "")
        and not isinstance(default, bool)
        and not str(default).startswith(_EXPRESSION)
    ):
        shown.append(f"default: {default}")
    kind: dict[str, Any] = {"help": "; ".join(filter(None, shown)).replace("%", "%%"), "default": None}
    if choices:
        return {**kind, "choices": choices[1].split(" | ")}
    if isinstance(default, bool) or default == "auto":
        return {**kind, "action": argparse.BooleanOptionalAction}
    if isinstance(default, int):
        return {**kind, "type": int, "metavar": "N"}
    if isinstance(default, float):
        return {**kind, "type": float, "metavar": "X"}
    if isinstance(default, list | dict):
        return {**kind, "type": _structure, "metavar": "YAML"}
    return {**kind, "type": _text if isinstance(default, str) else _value, "metavar": "VALUE"}


def _text(text: str) -> str:
    """Text that no configuration evaluates."""
    if text.startswith(_EXPRESSION):
        raise argparse.ArgumentTypeError(f"{text!r} is an expression; put it into a file for --config")
    return text


def _structure(text: str) -> Any:
    """A list or a mapping, such as "[-160, 240]"; or a number, where one stands for all of them."""
    try:
        value = ast.literal_eval(text)  # as monai.bundle reads it; YAML takes an unquoted off for False
    except (SyntaxError, ValueError):
        value = _from_yaml(text)
    check_plain(value)
    return value


def _from_yaml(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise argparse.ArgumentTypeError(f'{text!r} is no list such as "[0.5, 99.5]"') from error


def check_plain(value: Any) -> None:
    """Refuse text in a value that a configuration would evaluate.

    Raises:
        argparse.ArgumentTypeError: names it.
    """
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        for one in value:
            check_plain(one)
    elif isinstance(value, str):
        _text(value)


def _value(text: str) -> Any:
    """Of a setting without a default: a number, a list, null, or text."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    if text.startswith(("[", "{")):
        return _structure(text)
    return None if text in ("null", "None") else _text(text)


def given_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Id -> value of what the user has set."""
    return {
        name.removeprefix(_DEST): value
        for name, value in vars(arguments).items()
        if name.startswith(_DEST) and value is not None
    }


def settings_by_name(
    given: Mapping[str, Any], files: Iterable[Path], left_out: Iterable[str] = ()
) -> dict[str, Any]:
    """Id -> value of settings that are named as keyword arguments of Python: ct_window for ct#window.

    Args:
        left_out: ids that are not offered.

    Raises:
        TypeError: there is no such setting.
        ValueError: text that a configuration would evaluate.
    """
    known = {
        setting.option[2:].replace("-", "_"): setting.id
        for setting in settings_in(files)
        if setting.id not in left_out
    }
    for name, value in given.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            raise TypeError(f"no setting {name}{f'; did you mean {close[0]}?' if close else ''}")
        try:
            check_plain(value)
        except argparse.ArgumentTypeError as error:
            raise ValueError(f"{name}: {error}") from error
    return {known[name]: value for name, value in given.items()}


def add_network_options(command: argparse.ArgumentParser) -> None:
    """Options about the network, and further configuration."""
    command.add_argument("--device", help="cpu, cuda, cuda:1, ...; default: the first GPU, or the CPU")
    network = command.add_mutually_exclusive_group()
    network.add_argument("--weights", type=path_of, metavar="FILE", help="default: models/model.pt")
    network.add_argument(
        "--export",
        type=path_of,
        metavar="DIR",
        help="ONNX graphs of `tpseg export` in place of weights, on the CPU (docs/export.md)",
    )
    add_config_options(command)


def add_config_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--config",
        type=path_of,
        action="append",
        default=[],
        metavar="FILE",
        help="configuration over the others, e.g. configs/medconddiff.yaml, whose settings become options; "
        "repeatable",
    )
    command.add_argument("--debug", action="store_true", help="tracebacks and MONAI's own messages")


def configs_in(argv: Sequence[str]) -> list[Path]:
    """The files that --config names, before options are read, for they have options of their own."""
    named = [following for option, following in zip(argv, argv[1:], strict=False) if option == "--config"]
    named += [one.partition("=")[2] for one in argv if one.startswith("--config=")]
    return [Path(one) for one in named if Path(one).is_file()]


def workflow_of(
    files: Sequence[Path],
    kind: str,
    settings: Mapping[str, Any],
    device: str | None = None,
    logging_file: Path | None = None,
) -> ConfigWorkflow:
    """Configuration files with settings over them, initialised.

    What the user gave reaches the configuration as objects (paths, not strings), so that nothing in it is evaluated.

    Raises:
        Exception: torch and MONAI raise every kind for settings that they cannot use.
    """
    from monai.bundle import ConfigWorkflow

    from bundle.commands.command_line import check_files
    from bundle.networks.weights import usable_device

    check_files(files)
    workflow = ConfigWorkflow(
        config_file=[str(path) for path in files],
        meta_file=str(CONFIGS / "metadata.json"),
        logging_file=False if logging_file is None else str(logging_file),
        workflow_type=kind,
        **{
            "bundle_root": ROOT,
            **({} if device is None else {"device": usable_device(device)}),
            **settings,
        },
    )
    workflow.initialize()
    return workflow


def inference_workflow(arguments: argparse.Namespace, **overrides: Any) -> ConfigWorkflow:
    """configs/inference.yaml with the options and overrides, initialised.

    Raises:
        Exception: as of `workflow_of`.
    """
    settings = {**given_settings(arguments), **overrides}
    return inference_with(settings, arguments.config, arguments.weights, arguments.export, arguments.device)


def inference_with(
    settings: Mapping[str, Any],
    configs: Sequence[Path] = (),
    weights: Path | None = None,
    export: Path | None = None,
    device: str | None = None,
) -> ConfigWorkflow:
    """configs/inference.yaml with further files and settings over it, initialised.

    Args:
        settings: id -> value.
        weights: None for models/model.pt.
        export: graphs in place of weights.

    Raises:
        Exception: as of `workflow_of`.
    """
    from bundle.cases import CaseError

    settings, files = dict(settings), [INFERENCE, *configs]
    if export is None:
        settings["weights"] = weights or MODELS / "model.pt"
    else:
        files.append(CONFIGS / "exported.yaml")
        settings |= {"export": export, "overridden": list(settings)}
        if device not in (None, "cpu"):
            raise CaseError("device", "exported graphs run on the CPU", "leave it out, or --export")
    return workflow_of(files, "inference", settings, device)


def cases_of(parser: Any, **given: Any) -> CaseList:
    """The cases that a configuration would find, with what was given to `bundle.inference.find_cases` by hand.

    Paths and prompts reach it so without going through the parser, which would evaluate one that begins with '$' or
    '@'. What is None is left to the configuration.

    Raises:
        CaseError: see `bundle.inference.find_cases`.
    """
    from bundle.inference import find_cases

    names = [name for name in parser["cases"] if not name.startswith("_") and given.get(name) is None]
    options = {name: parser.get_parsed_content(f"cases#{name}") for name in names}
    return find_cases(**options | {name: value for name, value in given.items() if value is not None})


def refused(error: Exception, debug: bool) -> int:
    """Say in one sentence why nothing could be started; the exit code."""
    import logging
    import sys

    from bundle.commands.command_line import sentence_for
    from bundle.exit_codes import NOT_STARTED

    if debug:
        logging.exception("nothing could be started")
    print(f"error: {sentence_for(error)}", file=sys.stderr)
    return NOT_STARTED
