"""What a user can set, and which settings decide on a result.

Both follow from the configuration itself: a setting is a top-level id that holds plain data. Whatever is not listed
here as deciding on nothing counts as deciding, so that a new option is safe without a further line.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monai.bundle import ConfigParser

    from bundle.cases.structures import Structures

_CASES = "says which cases there are; each is compared by itself"
_PLACE = "a place, not what lies there"
_SPEED = "changes the speed alone"
#: Settings that decide on no result, and why. `--resume` and a continued training may change them, and an export does
#: not hold them.
DECIDES_NOTHING: Mapping[str, str] = {
    **dict.fromkeys(
        ("input", "part", "prompt_file", "split", "text_key", "text_beside", "modality", "series"), _CASES
    ),
    **dict.fromkeys(("series_description", "series_modality", "min_slices", "orientation"), _CASES),
    **dict.fromkeys(("resample_slices", "datalist", "validation_datalist", "validation_split"), _CASES),
    **dict.fromkeys(("bundle_root", "output_dir", "dataset_dir", "feature_dir", "text_cache"), _PLACE),
    **dict.fromkeys(("device", "batch_size", "num_workers", "jobs", "progress"), _SPEED),
    **dict.fromkeys(("engine", "ray_address", "actor_cpus", "actor_gpus", "actor_memory"), _SPEED),
    **dict.fromkeys(("keep_features", "feature_bytes", "keep_texts"), _SPEED),
    "weights": "compared by their content",
    **dict.fromkeys(("initial_weights", "inherit_weights"), "read before a training's first epoch alone"),
    "export": "its settings count",
    "overridden": "names settings, which count",
    "resume": "is what asks for the comparison",
    "replacement_seed": "is a secret that is written nowhere",
}
#: What is written of a result and how: compared by `--resume`, and the choice of whoever runs an export.
OF_FILES = frozenset(
    ("identifiers", "dicom_seg", "seg_type", "dicom_sr", "dicom_rtstruct", "probability_dicom", "geojson")
    + ("slide_mpp",)
)
#: What a continued training may change: how long it is, what it learns from, and how it is validated.
TRAINING_MAY_CHANGE = OF_FILES | frozenset(
    ("epochs", "val_interval", "validation_text", "spacing_is_true", "max_gradient_norm", "bfloat16")
    + ("dice_weight", "ce_weight", "naming_weight", "dice_per_image", "use_class_weights", "pure_noise_share")
    + ("datalist_shares", "rare_class_share", "text_dropout", "prompt_shares", "mirrored_xrays")
    + ("vary_images", "ct_augmentation", "xray_augmentation", "histology_flips", "drop_path")
    + ("steps", "members", "sampler", "placement", "consensus", "uncertainty", "tile_size", "tile_overlap")
)
_NO_SETTINGS = frozenset(("imports", "initialize", "run", "finalize", "_meta_"))


def settings_of(parser: ConfigParser | None = None) -> dict[str, Any]:
    """Every setting that decides on results and files, by its id, as plain data that JSON can hold.

    Of the structures it has what decides on masks, wherever their file lies.

    Args:
        parser: of the configuration; by default the one that evaluates the expression in which this is called.
    """
    return _settings(parser or _evaluating_parser(), lambda structures: structures.deciding)


def _settings(parser: ConfigParser, of_structures: Callable[[Structures], Any]) -> dict[str, Any]:
    from monai.bundle import ConfigParser

    from bundle.cases.structures import Structures

    config = parser.get()
    names = set(_plain_ids(config))
    # another parser: this one is at work, perhaps on what asks
    plain = ConfigParser({name: config[name] for name in (*names, *_NO_SETTINGS & {"imports"} & set(config))})
    plain.parse()
    found = {}
    for name in sorted(names - set(DECIDES_NOTHING)):
        try:
            value = plain.get_parsed_content(name)
            value = of_structures(Structures(value)) if name == "structures" else value
            found[name] = _as_data(value, str(config.get("bundle_root", ".")))
        except TypeError:  # an expression that gives an object
            continue
    return found


def training_settings_of(parser: ConfigParser | None = None) -> dict[str, Any]:
    """What a continued training may not change; arguments as of `settings_of`."""
    found = settings_of(parser)
    return {name: value for name, value in found.items() if name not in TRAINING_MAY_CHANGE}


def export_settings_of(parser: ConfigParser | None = None) -> dict[str, Any]:
    """What an exported network is run with, all about its structures included; arguments as of `settings_of`."""
    found = _settings(parser or _evaluating_parser(), lambda structures: structures.entries)
    return {name: value for name, value in found.items() if name not in OF_FILES}


def apply_settings(
    settings: Mapping[str, Any], kept: Collection[str] = (), parser: ConfigParser | None = None
) -> None:
    """Give a configuration other settings.

    What it has no such id for is left out.

    Args:
        settings: as `settings_of` gives them, perhaps by a stranger.
        kept: ids, of nested ones such as ct#window too, that stay as they are.
        parser: as of `settings_of`.

    Raises:
        ValueError: a setting would be evaluated.
    """
    parser = parser or _evaluating_parser()
    for name in settings:
        if name not in parser or name in DECIDES_NOTHING or name in OF_FILES:
            continue
        if not _is_data(settings[name]):
            raise ValueError(f"{name} is no plain setting, and was not taken.")
        for place, value in _leaves(name, settings[name], parser[name]):
            if place not in kept and name not in kept:
                parser[place] = value


def _leaves(name: str, value: Any, present: Any) -> Iterator[tuple[str, Any]]:
    """Of a group of settings each by itself."""
    if isinstance(value, Mapping) and isinstance(present, Mapping) and value.keys() <= present.keys():
        yield from ((f"{name}#{key}", value[key]) for key in value)
    else:
        yield name, value


def _is_data(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(not str(key).startswith("_") and _is_data(one) for key, one in value.items())
    if isinstance(value, list):
        return all(map(_is_data, value))
    return not (isinstance(value, str) and value.startswith(("$", "@", "%")))


def differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(id, earlier value, value now) of the settings that both have and that differ; of nested ones each by itself."""
    for name, value in now.items():
        if name not in earlier or earlier[name] == value:
            continue
        before = earlier[name]
        if isinstance(before, Mapping) and isinstance(value, Mapping) and before.keys() & value.keys():
            for key, one, other in differences(before, value):
                yield f"{name}#{key}", one, other
        else:
            yield name, before, value


def _plain_ids(config: Mapping[str, Any]) -> Iterator[str]:
    """Ids of what holds data, or expressions that refer to nothing but data."""
    known: dict[str, bool] = {}

    def is_plain(name: str) -> bool:
        if name not in known:
            known[name] = False  # as long as it refers to itself
            known[name] = (
                name in config and name not in _NO_SETTINGS and all(map(is_plain, _references(config[name])))
            )
        return known[name]

    return (name for name in config if is_plain(name))


def _references(content: Any) -> Iterator[str]:
    """Top-level ids that content refers to; of components one that there is not."""
    from monai.bundle import ReferenceResolver

    if isinstance(content, Mapping):
        if "_target_" in content:
            yield "_target_"
        content = list(content.values())
    if isinstance(content, list):
        for one in content:
            yield from _references(one)
    elif isinstance(content, str):
        if "settings_of(" in content:  # which asks for all of them
            yield "_target_"
        for reference in ReferenceResolver.match_refs_pattern(content):
            yield ReferenceResolver.split_id(reference)[0]


def _as_data(value: Any, root: str) -> Any:
    """Through JSON, which is how settings are kept; what lies in the bundle is named from its root on.

    Raises:
        TypeError: it is an object.
    """

    def named(one: Any) -> Any:
        if isinstance(one, Mapping):
            return {key: named(part) for key, part in one.items()}
        if isinstance(one, list | tuple):
            return [named(part) for part in one]
        if isinstance(one, str | Path):
            return str(one).removeprefix(f"{root}/")
        return one

    return json.loads(json.dumps(named(value)))


def _evaluating_parser() -> ConfigParser:
    """The parser that an expression is being evaluated for.

    MONAI hands an expression the content that is resolved so far (`__local_refs`), in which an option that nothing has
    asked for yet is missing, and no way to the rest; so it is looked for among the callers.
    """
    from monai.bundle import ConfigParser

    frame: FrameType | None = sys._getframe()
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, ConfigParser):
            return owner
        frame = frame.f_back
    raise RuntimeError("settings are asked for outside of a configuration's expressions")
