"""Structures give channels and mask values by name, and refuse lists that cannot be meant."""

from __future__ import annotations

from typing import Any

import pytest

from bundle.cases.structures import Structure, Structures

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
    assert structures[2] == Structure("liver", "CT")
    assert [structure.name for structure in structures] == [entry["name"] for entry in ENTRIES]


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


def test_a_name_that_stands_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="^structures: a name stands twice in aorta, aorta$"):
        Structures([ENTRIES[0], {"name": "aorta", "modality": "X-ray"}])


@pytest.mark.parametrize("modality", ["MRI", "ct", None])
def test_an_unknown_modality_is_refused(modality: Any) -> None:
    with pytest.raises(ValueError, match=f"^structures: brain has modality {modality!r}, not one of "):
        Structures([{"name": "brain", "modality": modality}])


def test_as_many_as_a_uint8_mask_holds_and_no_more() -> None:
    entries = [{"name": f"structure {i}", "modality": "CT"} for i in range(256)]
    assert Structures(entries[:255]).value("structure 254") == 255
    with pytest.raises(ValueError, match="^structures: 256 do not fit the 255 values of a uint8 mask$"):
        Structures(entries)


def test_no_structures_leave_the_background() -> None:
    assert Structures([]).channels == 1
