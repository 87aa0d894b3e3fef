"""An option is one line of a configuration: what compares, keeps and offers settings finds it there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from monai.bundle import ConfigParser

from bundle.cases.structures import SHIPPED
from bundle.settings import (
    DECIDES_NOTHING,
    OF_FILES,
    TRAINING_MAY_CHANGE,
    apply_settings,
    differences,
    export_settings_of,
    settings_of,
    training_settings_of,
)

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def configuration(*names: str, more: dict[str, Any] | None = None, **overrides: Any) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / f"{name}.yaml") for name in names])
    for key, value in {**overrides, **(more or {})}.items():
        parser[key] = value
    return parser


def test_a_new_option_counts_everywhere_without_a_further_line() -> None:
    parser = configuration("inference", "train", new_option=[1, 2], datalist="x.json")
    for settings in (settings_of, training_settings_of, export_settings_of):
        assert settings(parser)["new_option"] == [1, 2]
    parser = configuration("inference", more={"ct#sharpen": 0.5})
    assert settings_of(parser)["ct"]["sharpen"] == 0.5


def test_what_decides_on_nothing_does_not_count() -> None:
    settings = settings_of(configuration("inference", "train", datalist="x.json"))
    assert not settings.keys() & {
        *DECIDES_NOTHING,
        "imports",
        "run",
        "initialize",
        "network_def",
        "cases",
        "handlers",
    }
    assert not export_settings_of(configuration("inference")).keys() & OF_FILES
    assert {"learning_rate", "ct", "xray", "structures", "text_encoder"} <= settings.keys()


def test_every_name_in_the_lists_is_a_setting() -> None:
    """Or a misspelt one would not be left out."""
    known: set[str] = set()
    for path in set(CONFIGS.glob("*.yaml")) - {SHIPPED}:
        known |= yaml.safe_load(path.read_text()).keys()
    assert {*DECIDES_NOTHING, *OF_FILES, *TRAINING_MAY_CHANGE} <= known


def test_structures_count_by_what_decides_on_masks_and_travel_whole(tmp_path: Path) -> None:
    entries = [{"name": "cyst", "modality": "CT"}]
    one, other = tmp_path / "one.yaml", tmp_path / "other.yaml"
    one.write_text(yaml.safe_dump(entries))
    other.write_text(yaml.safe_dump([{**entries[0], "colour": [1, 2, 3]}]))
    of = [configuration("inference", structures=str(path)) for path in (one, other)]
    first, second = map(settings_of, of)
    assert not list(differences(first, second))
    assert first["structures"][0]["name"] == "cyst" and "colour" not in first["structures"][0]
    taken = configuration("inference")
    apply_settings(export_settings_of(of[1]), parser=taken)
    assert taken.get_parsed_content("structure_set")[0].colour == (1, 2, 3)


def test_expressions_and_references_count_by_their_value() -> None:
    parser = configuration("inference", "train", "medconddiff", datalist="x.json", epochs=30, batch_size=8)
    settings = settings_of(parser)
    assert settings["schedule_epochs"] == 30 and settings["training_batch_size"] == 8
    assert settings["schedule_shift"] == pytest.approx(-3.46, abs=0.1)
    assert settings["ct"]["percentiles"] == [0.5, 99.5]


def test_the_place_of_the_bundle_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "configs").symlink_to(CONFIGS)
    here, there = (settings_of(configuration("inference", bundle_root=root)) for root in (".", tmp_path))
    assert here == there and here["text_encoder"] == "models/text_prior"


def test_an_expression_asks_for_its_own_configuration() -> None:
    parser = configuration("inference", steps=7)
    parser["asked"] = "$settings_of()"
    assert parser.get_parsed_content("asked")["steps"] == 7
    assert parser.get_parsed_content("sampling").steps == 7
    with pytest.raises(RuntimeError, match="outside of a configuration"):
        settings_of()


def test_differences_name_the_nested_setting() -> None:
    earlier = {"ct": {"window": [0, 1], "air": 0}, "seed": 0, "gone": 1}
    assert list(differences(earlier, {"ct": {"window": [0, 2], "air": 0}, "seed": 1, "new": 1})) == [
        ("ct#window", [0, 1], [0, 2]),
        ("seed", 0, 1),
    ]


def test_settings_of_another_configuration_are_taken_but_for_those_that_are_kept() -> None:
    given = export_settings_of(configuration("inference", steps=3, more={"ct#air": -0.2, "xray#size": 96}))
    parser = configuration("inference", steps=5, more={"ct#window": [0.0, 80.0]})
    apply_settings({**given, "identifiers": "keep", "unknown": 1}, ["steps", "ct#window"], parser)
    settings = settings_of(parser)
    assert settings["steps"] == 5 and settings["ct"]["window"] == [0.0, 80.0]
    assert settings["ct"]["air"] == -0.2 and settings["xray"]["size"] == 96
    assert settings["identifiers"] == "hide" and "unknown" not in settings


@pytest.mark.parametrize("value", ["$1 + 1", "@seed", "%x.yaml::y", {"_target_": "os.system"}, [["$1"]]])
def test_settings_that_would_be_evaluated_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="steps is no plain setting"):
        apply_settings({"steps": value}, (), configuration("inference"))
