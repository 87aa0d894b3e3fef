"""What headers give as names, numbers and dates of a patient is replaced in texts and kept out of names of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from bundle.cases.privacy import Identity, Naming

MUELLER = Identity.of(
    ["M\u00fcller-Orto^Jos\u00e9^K.^Dr.=\u5c71\u7530^\u592a\u90ce"],
    ["P-4711", "A100"],
    ["19500203"],
    ["20240506"],
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mr M\u00fcller has a large liver.", "Mr [name] has a large liver."),
        ("MUELLER, JOSE: large liver", "[name]: large liver"),
        ("Jos\u00e9 Muller's liver", "[name]'s liver"),
        ("Frau Orto, M\u00fcller-Orto", "Frau [name]"),
        ("m\u00fcllerian duct and Ortolani's sign", "m\u00fcllerian duct and Ortolani's sign"),
        ("K. and Dr. read it", "K. and Dr. read it"),
        ("\u5c71\u7530\u592a\u90ce\u3055\u3093", "[name]\u3055\u3093"),
        ("id P-4711, P4711 or p 4711, not P-47112", "id [number], [number] or [number], not P-47112"),
        ("visit A100; 100 ml", "visit [number]; 100 ml"),
        ("seen on 2024-05-06", "seen on 2024-05-06"),
    ],
)
def test_names_and_numbers_are_replaced_as_whole_words(text: str, expected: str) -> None:
    assert MUELLER.hidden(text) == expected


@pytest.mark.parametrize(
    "written",
    [
        "19500203", "1950-02-03", "1950/2/3", "1950.02.03", "03.02.1950", "3.2.1950", "3.2.50", "03/02/1950",
        "02/03/1950", "2/3/50", "3-2-1950", "03 02 1950", "3. 2. 1950", "03021950", "3 February 1950",
        "3rd of February 1950", "3. Februar 1950", "3 f\u00e9vrier 1950", "03-Feb-1950", "3 de febrero de 1950",
        "February 3, 1950", "Feb. 3rd, 1950", "FEB 03 1950",
    ],
)  # fmt: skip
def test_dates_of_birth_are_replaced_in_the_usual_forms(written: str) -> None:
    assert MUELLER.hidden(f"born {written}: liver") == "born [date]: liver"


@pytest.mark.parametrize(
    "written",
    ["1950", "04.02.1950", "1950-02-13", "3 February 1951", "13.02.1950", "3.2 cm", "February 1950"],
)
def test_other_dates_and_sizes_stay(written: str) -> None:
    assert MUELLER.hidden(f"since {written}") == f"since {written}"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("Mueller_Jose", True), ("CT M\u00dcLLER", True), ("josemuller2", True), ("P4711", True), ("ct_p-4711_2", True),
        ("1950-02-03", True), ("scan 2024.05.06", True), ("\u5c71\u7530", True), ("thorax", False),
        ("IM0001.dcm", False), ("k", False),
    ],
)  # fmt: skip
def test_names_of_files_are_told(name: str, found: bool) -> None:
    assert MUELLER.is_in(name) == found


def test_nothing_is_hidden_where_nothing_is_known() -> None:
    assert Identity.of([""], ["", "1"], ["", "unknown"], []) == Identity()
    assert Identity().hidden("Jane Doe, 1950-02-03") == "Jane Doe, 1950-02-03"
    both = Identity.union([MUELLER, Identity.of(["Doe^Jane"], [], [], [])])
    assert both.hidden("Doe and Orto") == "[name] and [name]"


def test_paths_are_relative_and_their_parts_hashed() -> None:
    naming = Naming(True, ("/data/M\u00fcller/export", "/data"), MUELLER, "1.2.3")
    folder = Path("/data/M\u00fcller/export/Mueller Jose/thorax")
    shown = naming.path(folder)
    assert shown.endswith("/thorax") and len(shown) == len("/thorax") + 8
    assert naming.path(Path("/elsewhere/M\u00fcller/a.nii")) == "a.nii"
    assert naming.path(Path("/data/b/c.nii")) == "b/c.nii"
    # what is not hidden could be tried with a list of names: the study goes into the hash
    assert shown != Naming(True, naming.roots, MUELLER, "1.2.4").path(folder)
    sentence = f"{folder}: is broken; see /data/M\u00fcller/export (of Orto)."
    assert naming.text(sentence, [folder]) == f"{shown}: is broken; see export (of [name])."
    assert Naming(False, naming.roots, MUELLER).text(sentence) == sentence
    assert Naming(False, naming.roots, MUELLER).path(folder) == str(folder)
