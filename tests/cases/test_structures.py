"""Structures follow from a file or a list, give channels and mask values by name, and refuse what cannot be meant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from bundle.cases import CaseError, CaseReference
from bundle.cases.structures import SHIPPED, Structures, shipped_structures

ENTRIES = [
    {"name": "aorta", "modality": "CT"},
    {"name": "COVID-19 infection", "modality": "X-ray"},
    {"name": "liver", "modality": "CT"},
    {"name": "nucleus", "modality": "H&E"},
]


def test_values_follow_the_order_and_background_is_a_channel_of_its_own() -> None:
    structures = Structures(ENTRIES)
    assert [structures.value(entry["name"]) for entry in ENTRIES] == [1, 2, 3, 4]
    assert structures.channels == 5 and len(structures) == 4
    assert [structure.name for structure in structures] == [entry["name"] for entry in ENTRIES]


def test_stated_values_hold_whatever_the_order() -> None:
    structures = Structures([{**ENTRIES[0], "value": 2}, {**ENTRIES[2], "value": 1}])
    assert [one.name for one in structures] == ["liver", "aorta"]
    assert structures.value("aorta") == 2 and structures[1].value == 2


def test_a_modality_shows_its_own_structures_by_value() -> None:
    structures = Structures(ENTRIES)
    assert structures.of_modality("CT") == {1: "aorta", 3: "liver"}
    assert structures.of_modality("X-ray") == {2: "COVID-19 infection"}
    assert Structures(ENTRIES[:1]).of_modality("H&E") == {}


def test_membership_is_by_name() -> None:
    structures = Structures(ENTRIES)
    assert structures.knows("liver") and not structures.knows("spleen")


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(
        KeyError, match="no structure 'spleen'; known are aorta, COVID-19 infection, liver, nucleus"
    ):
        Structures(ENTRIES).value("spleen")


def test_no_structures_leave_the_background() -> None:
    assert Structures([]).channels == 1


# --- files -----------------------------------------------------------------------------------------------


def written(folder: Path, text: str) -> Path:
    path = folder / "my.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_of_names_and_modalities_is_enough(tmp_path: Path) -> None:
    structures = Structures(
        written(tmp_path, "- {name: cyst, modality: CT}\n- {name: stone, modality: CT}\n")
    )
    assert structures.of_modality("CT") == {1: "cyst", 2: "stone"}
    assert [one.code for one in structures] == [None, None]
    assert [dict(one.words) for one in structures] == [{}, {}]
    colours = [one.colour for one in structures]
    assert len(set(colours)) == 2 and all(0 <= channel <= 255 for colour in colours for channel in colour)


def test_chosen_colours_stay_apart_and_do_not_change_when_the_list_grows() -> None:
    entries = [{"name": f"structure {i}", "modality": "CT"} for i in range(20)]
    colours = [one.colour for one in Structures(entries)]
    assert len(set(colours)) == 20
    assert [one.colour for one in Structures(entries[:7])] == colours[:7]


def test_shipped_names_bring_colour_code_and_words_but_not_cleaning() -> None:
    own, shipped = Structures([{"name": "Liver", "modality": "CT"}]), shipped_structures()
    liver = shipped[shipped.value("liver") - 1]
    assert (own[0].colour, own[0].code, own[0].words) == (liver.colour, liver.code, liver.words)
    assert (own[0].one_piece, own[0].least_piece, own[0].least_end) == (False, 0.0, 0.0)
    stated = Structures([{"name": "liver", "modality": "CT", "colour": [1, 2, 3], "synonyms": ["hepar"]}])[0]
    assert (
        stated.colour == (1, 2, 3) and stated.words == {"synonyms": ["hepar"]} and stated.code == liver.code
    )
    assert Structures([{"name": "liver", "modality": "X-ray"}])[0].code is None


def test_entries_are_plain_and_make_the_same_structures_again() -> None:
    shipped = shipped_structures()
    again = Structures(json.loads(json.dumps(shipped.entries)))
    assert list(again) == list(shipped)


def test_what_decides_on_a_result_is_plain_and_leaves_appearance_out() -> None:
    entries = [{"name": "cyst", "modality": "CT", "one_piece": True}]
    deciding = Structures(entries).deciding
    assert deciding == json.loads(json.dumps(deciding)) and deciding[0]["least_piece"] == 0.5
    coloured = Structures([{**entries[0], "colour": [1, 2, 3], "synonyms": ["bag"]}])
    assert coloured.deciding == deciding
    assert Structures([{**entries[0], "least_end": 0.1}]).deciding != deciding


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name: cyst", "is no list of structures; write entries such as - {name: cyst, modality: CT}."),
        ("- {name: cyst, modality: CT", "is not valid YAML (line 1, column 28); correct it."),
    ],
)
def test_a_file_that_is_none_is_said(tmp_path: Path, text: str, sentence: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(CaseError) as caught:
        Structures(path)
    assert str(caught.value) == f"{path}: {sentence}"


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match="does not exist; name a file of structures"):
        Structures(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        (["liver"], "entry 1: 'liver' is not of type 'object'"),
        ([{"modality": "CT"}], "entry 1: 'name' is a required property"),
        ([{"name": 5, "modality": "CT"}], "entry 1 (5): name: 5 is not of type 'string'"),
        ([{"name": "brain"}], "entry 1 ('brain'): 'modality' is a required property"),
        (
            [{"name": "brain", "modality": "MRI"}],
            "entry 1 ('brain'): modality: 'MRI' is not one of CT, X-ray, H&E",
        ),
        ([{"name": "brain", "modality": "ct"}], "CT, X-ray, H&E (did you mean 'CT'?)"),
        (
            [{"name": "brain", "modality": "CT", "color": [1, 2, 3]}],
            "entry 1 ('brain'): unknown key 'color' (did you mean 'colour'?)",
        ),
        (
            [{"name": "brain", "modality": "CT", "colour": [1, 2, 256]}],
            "colour: 256 is greater than the maximum of 255",
        ),
        ([{"name": "brain", "modality": "CT", "least_end": 1.5}], "least_end: 1.5 is greater than"),
        ([{"name": "brain", "modality": "CT", "value": 0}], "value: 0 is less than the minimum of 1"),
        ([{"name": "brain", "modality": "CT", "code": {}}], "code: 'type' is a required property"),
        (
            [{"name": "brain", "modality": "CT", "code": {"type": ["1", "x"], "side": "left"}}],
            "code: unknown key 'side'",
        ),
        ([ENTRIES[0], ENTRIES[0]], "'aorta' and 'aorta' have the same name 'aorta'; give each a name"),
        ([ENTRIES[0], {**ENTRIES[2], "value": 1}], "'aorta' and 'liver' have the same value 1; give each"),
        ([{**ENTRIES[0], "value": 3}], "numbers 1 structures, but none has the value 1"),
        (
            [
                {
                    "name": "eye",
                    "modality": "CT",
                    "pair": {"name": "ear", "pair_name": "ears", "plural": "ears"},
                }
            ],
            "'eye' is none of its pair, left or right ear or ears",
        ),
        (
            [{"name": f"structure {i}", "modality": "CT", "value": 1 + i % 255} for i in range(256)],
            "has 256 structures; a uint8 mask has room for 255",
        ),
    ],
)
def test_an_entry_that_cannot_be_meant_is_named(entries: list[Any], problem: str) -> None:
    with pytest.raises(CaseError) as caught:
        Structures(entries)
    assert str(caught.value).startswith("structures: ") and problem in str(caught.value)


def test_as_many_as_a_uint8_mask_holds() -> None:
    entries = [{"name": f"structure {i}", "modality": "CT"} for i in range(255)]
    assert Structures(entries).value("structure 254") == 255


def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    path = written(tmp_path, "- !!python/object/apply:os.system ['touch run']\n")
    with pytest.raises(CaseError, match="is not valid YAML"):
        Structures(path)


# --- labels ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        ({}, "holds values that no name is given for; add 'labels'"),
        (
            {1: "liver", 2: "splen"},
            "labels 'splen', which the network does not know (did you mean 'spleen'?)",
        ),
    ],
)
def test_labels_that_no_structure_stands_for_are_named(labels: dict[int, str], problem: str) -> None:
    good = CaseReference("a", Path("a.nii.gz"), Path("a_mask.nii.gz"), labels={1: "liver"})
    none = CaseReference("b", Path("b.nii.gz"))
    bad = CaseReference("c", Path("c.nii.gz"), Path("c_mask.nii.gz"), labels=labels)
    shipped_structures().check_labels([good, none])
    with pytest.raises(CaseError) as caught:
        shipped_structures().check_labels([good, none, bad])
    assert str(caught.value).startswith(f"c_mask.nii.gz: {problem}")


def test_the_shipped_file_states_every_value_colour_and_code() -> None:
    entries = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
    assert [entry["value"] for entry in entries] == list(range(1, len(entries) + 1))
    assert all("colour" in entry and "code" in entry for entry in entries)
