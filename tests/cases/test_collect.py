"""Sources become cases with unique, portable ids; datalists and prompts are taken as written."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest

from bundle.cases import CaseError, CaseReference, collect_cases, read_prompts
from bundle.cases.ids import case_ids

SAFE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def ids_of(*names: str) -> list[str]:
    ids = case_ids([Path(name) for name in names])
    return [ids[Path(name)] for name in names]


def refused(
    path: Path | str, *words: str, source: Path | list[Path] | None = None, **options: object
) -> None:
    with pytest.raises(CaseError) as caught:
        collect_cases(Path(path) if source is None else source, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert Path(path).name in message and message.endswith(".") and len(message.splitlines()) == 1
    for word in words:
        assert word in message


# --- ids -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["/d/a.nii.gz"], ["a"]),
        (["/d/Scan 1 (ä).NII.GZ"], ["Scan_1____"]),
        (["/d/..hidden..png"], ["hidden"]),
        (["/d/....png"], ["case"]),
        (["/d/con.png", "/d/NUL.x.tif", "/d/console.png"], ["case_con", "case_NUL.x", "console"]),
        (["/d/run.json.png", "/d/Index.html.png"], ["case_run.json", "case_Index.html"]),
        (["/d/viewer.png", "/d/other.png"], ["case_viewer", "other"]),
        (["/d/a.png", "/d/a.tif"], ["a_png", "a_tif"]),
        (["/d/a.nii.gz", "/d/a.nii"], ["a_nii.gz", "a_nii"]),
        (["/d/p1/ct.nii", "/d/p2/ct.nii", "/d/p2/other.nii"], ["p1__ct", "p2__ct", "other"]),
        (["/d/p1/s/ct.nii", "/d/p2/s/ct.nii"], ["p1__s__ct", "p2__s__ct"]),
        (["/d/p1/a.png", "/d/p1/a.tif", "/d/p2/a.png"], ["p1__a_png", "p1__a_tif", "p2__a"]),
        (["/d/p/a.png", "/d/q/A.png"], ["p__a", "q__A"]),
        (["/a.png", "/d/a.png"], ["a", "d__a"]),
    ],
)
def test_ids(names: list[str], expected: list[str]) -> None:
    assert ids_of(*names) == expected


def test_names_that_only_a_hash_tells_apart() -> None:
    first, second = ids_of("/d/a b.png", "/d/a_b.png")
    assert first != second and all(re.fullmatch(r"a_b_png-[0-9a-f]{8}", one) for one in (first, second))
    long, longer = ids_of(f"/d/{'n' * 120}1.png", f"/d/{'n' * 120}2.png")
    assert long != longer and len(long) == len(longer) == 100
    assert ids_of(f"/d/{'n' * 100}.png") == ["n" * 100]


def test_ids_are_always_unique_and_independent_of_order() -> None:
    rng = random.Random(3)
    parts = [
        "a",
        "A",
        "a b",
        "a_b",
        "é",
        "..a",
        "con",
        "a__a",
        "run.json",
        "x" * 120,
        "x" * 121,
        "a_png",
        " ",
    ]
    for _ in range(150):
        paths = {
            Path(
                "/",
                *rng.choices(parts, k=rng.randint(0, 3)),
                rng.choice(parts) + rng.choice([".png", ".tif", ".nii.gz"]),
            )
            for _ in range(rng.randint(1, 40))
        }
        ordered = sorted(paths)
        ids = case_ids(ordered)
        shuffled = rng.sample(ordered, len(ordered))
        assert case_ids(shuffled) == ids
        assert len({one.lower() for one in ids.values()}) == len(paths)
        assert all(SAFE.fullmatch(one) and not one.endswith(".") for one in ids.values())


# --- files and folders -----------------------------------------------------------------------------------


def test_a_folder_is_searched_in_depth(tmp_path: Path) -> None:
    touch(
        tmp_path, "b.nii.gz", "a/z.PNG", "a/y.jpeg", "vol.mhd", "vol.raw", "notes.txt", "x.json", "b_mask.png"
    )
    touch(
        tmp_path,
        ".hidden.png",
        ".git/a.png",
        "__MACOSX/b.png",
        "@eaDir/t.jpg",
        "Thumbs.db",
        "out/c/mask.nii.gz",
    )
    references, failures = collect_cases(tmp_path, exclude=tmp_path / "out")
    assert [one.id for one in references] == ["y", "z", "b", "b_mask", "vol"]
    assert failures == [] and all(one.image.is_absolute() for one in references)
    assert collect_cases(str(tmp_path), exclude=tmp_path / "out")[0] == references


def test_several_sources_count_an_image_once(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "d/b.png", "d/c.png")
    datalist = write(tmp_path / "list.json", {"test": [{"image": "d/b.png", "text": "left lung"}]})
    forth, _ = collect_cases([tmp_path / "d", tmp_path / "a.png", datalist])
    back, _ = collect_cases([datalist, str(tmp_path / "a.png"), tmp_path / "d"])
    assert [one.id for one in forth] == ["b", "c", "a"]
    assert {one.id: one for one in forth} == {one.id: one for one in back}
    assert forth[0].prompt == "left lung"


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    touch(tmp_path, "real/a.png", "in/b.png")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "real")
    (tmp_path / "in" / "circle").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "gone.png").symlink_to(tmp_path / "nothing")
    assert [one.id for one in collect_cases(tmp_path / "in")[0]] == ["b", "gone", "a"]


def test_the_output_folder(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.png")
    refused(tmp_path, "both input and output", exclude=tmp_path)
    # A source that is named wins over the rule that keeps results out.
    assert len(collect_cases(tmp_path / "in", exclude=tmp_path)[0]) == 1


def test_nothing_to_do(tmp_path: Path) -> None:
    refused(tmp_path, "no images found", "folder")
    touch(tmp_path, "a.txt", "b.csv")
    refused(tmp_path, "2 files of other types")
    refused(tmp_path / "missing.nii", "does not exist")
    refused(tmp_path / "m1", "does not exist", source=[tmp_path / "m1", tmp_path / "m2"])
    refused("input", "names nothing", source=[])
    refused("b.png", "valid path", source=[Path("a\0b.png")])


def test_what_can_be_named_but_not_used_fails_alone(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "series/1.dcm", "series/2.dcm")
    (tmp_path / "series" / "CT.1.2.3").write_bytes(bytes(128) + b"DICM")
    references, failures = collect_cases([tmp_path, tmp_path / "missing.nii"])
    assert [one.id for one in references] == ["a"]
    assert [one.id for one in failures] == ["missing", "series"]
    assert "missing.nii: does not exist" in failures[0].error
    assert "DICOM" in failures[1].error and failures[1].input == "series"


# --- datalists -------------------------------------------------------------------------------------------


@pytest.fixture
def datalist(tmp_path: Path) -> Path:
    touch(tmp_path, "i/a.png", "i/b.png", "i/c.png", "l/a.png", "far/d.png")
    (tmp_path / "lists").mkdir()
    content = {
        "few": ["../i/a.png"],
        "name": "example",
        "authors": ["A", "B"],
        "modality": "X-ray",
        "labels": {"0": "background", "1": "infection"},
        "training": [
            {"image": "../i/a.png", "label": "../l/a.png", "text": "left lung"},
            {"image": "../i/b.png"},
        ],
        "validation": [{"image": str(tmp_path / "i" / "c.png"), "text": None, "modality": "h&e"}],
        "test": [{"image": "../far/d.png"}, {"image": "../i/a.png"}, {"image": "../i/gone.png"}],
    }
    return write(tmp_path / "lists" / "datalist.json", content)


def test_datalist_entries(datalist: Path, tmp_path: Path) -> None:
    references, failures = collect_cases(datalist)
    assert [one.id for one in references] == ["a", "b", "c", "d"]
    assert [(one.id, one.input) for one in failures] == [("gone", "gone.png")]
    assert "does not exist" in failures[0].error
    assert references[0] == CaseReference(
        "a",
        tmp_path / "i/a.png",
        tmp_path / "l/a.png",
        "left lung",
        "X-ray",
        {1: "infection"},
        "datalist",
        "datalist",
    )
    assert references[2].modality == "H&E" and references[2].prompt == "" and references[2].label is None
    stated = collect_cases(datalist, modality="X-ray")[0][2]
    assert (stated.modality, stated.modality_source) == ("X-ray", "option")


@pytest.mark.parametrize(
    ("split", "expected"),
    [("training", ["a", "b"]), ("validation", ["c"]), ("test", ["d", "a"]), ("few", ["a"])],
)
def test_splits(datalist: Path, split: str, expected: list[str]) -> None:
    references, _ = collect_cases(datalist, split=split)
    assert [one.id for one in references] == expected
    if split == "few":
        assert references[0].prompt == "left lung" and references[0].label is not None


def test_a_list_of_names_stands_for_the_entries_it_names(datalist: Path, tmp_path: Path) -> None:
    content = json.loads(datalist.read_text())
    content["few_shot_test"] = ["../far/../far/d.png", "../i/b.png"]
    references, _ = collect_cases(write(datalist, content), split="few_shot_test")
    assert [one.id for one in references] == ["d", "b"]
    content["few_shot_test"].append("../i/e.png")
    touch(tmp_path, "i/e.png")
    words = ("entry 3 of 'few_shot_test'", "../i/e.png", "no other list")
    refused(write(datalist, content), *words, split="few_shot_test")
    assert len(collect_cases(datalist)[0]) == 4, "a list that is not asked for does no harm"


def test_names_alone_are_images(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.png")
    datalist = write(tmp_path / "list.json", {"mine": ["a.png", "b.png"]})
    assert [one.label for one in collect_cases(datalist, split="mine")[0]] == [None, None]


def test_texts_stand_under_a_key_of_choice(datalist: Path) -> None:
    content = json.loads(datalist.read_text())
    content["training"][1]["text_six_zones"] = " @upper $left %lung\n"
    references, _ = collect_cases(write(datalist, content), split="training", text_key="text_six_zones")
    assert [one.prompt for one in references] == ["", " @upper $left %lung\n"]
    assert [one.prompt for one in collect_cases(datalist, split="training")[0]] == ["left lung", ""]
    refused(datalist, "'text_six_zone'", "text, text_six_zones", text_key="text_six_zone")
    content["training"][1]["text_six_zones"] = 3
    refused(write(datalist, content), "'text_six_zones' in entry 2", text_key="text_six_zones")


def test_a_datalist_without_texts_needs_no_key_of_them(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    datalist = write(tmp_path / "list.json", {"training": [{"image": "a.png"}]})
    assert [one.prompt for one in collect_cases(datalist, text_key="text_six_zones")[0]] == [""]


def test_foreign_datalists(tmp_path: Path) -> None:
    touch(tmp_path, "tr/a.nii.gz", "ts/b.nii.gz")
    content = {
        "modality": {"0": "CT"},
        "labels": {"background": 0, "liver": 1},
        "training": [{"image": "./tr/a.nii.gz", "label": "./tr/a.nii.gz"}],
        "test": ["./ts/b.nii.gz"],
    }
    references, failures = collect_cases(write(tmp_path / "dataset.json", content))
    assert [(one.id, one.modality, one.labels) for one in references] == [
        ("a", "CT", {1: "liver"}),
        ("b", "CT", {1: "liver"}),
    ]
    assert failures == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not valid JSON"),
        ("[" * 100_000, "nested"),
        ("[]", "not a datalist"),
        ({"training": []}, "not a datalist"),
        ({"training": [{"label": "a.png"}]}, "entry 1 of 'training' has no 'image'"),
        ({"training": [{"image": "a.png"}, 5]}, "entry 2 of 'training' is not an object"),
        ({"training": [{"image": ["a.png"]}]}, "'image' in entry 1"),
        ({"training": [{"image": ""}]}, "'image' in entry 1"),
        ({"training": [{"image": "a\0"}]}, "'image' in entry 1"),
        ({"training": [{"image": "a.png", "label": 1}]}, "'label' in entry 1"),
        ({"training": [{"image": "a.png", "text": 3}]}, "'text' in entry 1"),
        ({"training": [{"image": "a.png", "modality": "MRI"}]}, "modality"),
        ({"training": [{"image": "a.png"}], "modality": 4}, "'modality'"),
        ({"training": [{"image": "a.png"}], "labels": ["a"]}, "'labels'"),
        ({"training": [{"image": "a.png"}], "labels": {"one": "a"}}, "'labels' holds 'one'"),
        ({"training": [{"image": "a.png"}], "labels": {"300": "a"}}, "'labels' holds '300'"),
        ({"training": [{"image": "a.png", "text": "x"}, {"image": "a.png", "text": "y"}]}, "again"),
    ],
)
def test_malformed_datalists(tmp_path: Path, content: object, words: str) -> None:
    refused(write(tmp_path / "list.json", content), words)


def test_a_split_that_is_not_there(datalist: Path) -> None:
    refused(datalist, "no split 'holdout'", "training, validation, test", split="holdout")
    refused(datalist, "no split 'name'", split="name")
    datalist.write_bytes(b'{"training": "\xff"}')
    refused(datalist, "UTF-8")


# --- prompts ---------------------------------------------------------------------------------------------


def test_prompts_of_a_run(datalist: Path) -> None:
    assert {one.prompt for one in collect_cases(datalist, prompts="$import os")[0]} == {"$import os"}
    assert {one.prompt for one in collect_cases(datalist, prompts="")[0]} == {""}
    mapped, _ = collect_cases(datalist, prompts={"b": "right lung", "gone": "x"})
    assert [one.prompt for one in mapped] == ["left lung", "right lung", "", ""]
    refused(datalist, "2 of the prompts (nobody, x)", prompts={"b": "y", "x": "z", "nobody": "z"})


def test_prompt_files(tmp_path: Path) -> None:
    text = tmp_path / "p.txt"
    text.write_bytes(b"\xef\xbb\xbf@left lung: $x\nsecond line\r\n")
    assert read_prompts(text) == "@left lung: $x\nsecond line"
    assert read_prompts(write(tmp_path / "p.json", {"a": "liver"})) == {"a": "liver"}
    (tmp_path / "folder").mkdir()
    text.write_bytes(b"\xff\xfe")
    large = write(tmp_path / "large.txt", "x" * 1_000_001)
    for path, words in (
        (tmp_path / "missing.txt", "does not exist"),
        (tmp_path / "folder", "is a folder"),
        (text, "UTF-8"),
        (large, "larger"),
        (write(tmp_path / "n.json", {"a": 1}), "object of strings"),
        (write(tmp_path / "l.json", ["a"]), "object of strings"),
        (write(tmp_path / "m.json", "{"), "not valid JSON"),
    ):
        with pytest.raises(CaseError) as caught:
            read_prompts(path)
        assert path.name in str(caught.value) and words in str(caught.value)
