"""Lists of images: every way of writing them gives the same cases, and what is no list is said to be none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bundle.cases import CaseError, collect_cases
from bundle.cases.manifest import read_manifest


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b c.png", "d,e.png"):
        (tmp_path / "in" / name).write_bytes(b"x")
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.txt", "in/a.png\nin/b c.png\nin/d,e.png\n"),
        ("list.TXT", "# what we have\r\n\r\n  in/a.png\r\nin/b c.png\r\n./in/d,e.png\r\nin/a.png"),
        ("list.csv", 'image\nin/a.png\nin/b c.png\n"in/d,e.png"\n'),
        ("list.csv", "\ufeffsite;image\r\n1;in/a.png\r\n2;in/b c.png\r\n3;in/d,e.png\r\n"),
        ("list.tsv", "image\tmodality\nin/a.png\t\nin/b c.png\t\nin/d,e.png\t\n"),
        ("list.jsonl", '"in/a.png"\n{"image": "in/b c.png"}\n\n{"image": "in/d,e.png", "site": 3}\n'),
    ],
)
def test_every_list_gives_the_same_images(images: Path, name: str, text: str) -> None:
    references, failures = collect_cases(write(images / name, text))
    assert [one.image for one in references] == [
        images / "in" / name for name in ("a.png", "b c.png", "d,e.png")
    ]
    assert failures == [] and all(one.prompt == "" and one.modality is None for one in references)


def test_texts_and_modalities_are_those_of_the_list(images: Path) -> None:
    (images / "in" / "a.txt").write_text("the right lung")
    table = write(
        images / "list.csv", 'image,text,modality\nin/a.png,"left, lower\nlobe",xray\nin/b c.png,,CT\n'
    )
    objects = [
        {"image": "in/a.png", "text": "left, lower\nlobe", "modality": "xray"},
        {"image": "in/b c.png", "modality": "CT"},
    ]
    lines = write(images / "list.jsonl", "\n".join(map(json.dumps, objects)))
    for path in (table, lines):
        references, _ = collect_cases(path)
        assert [(one.prompt, one.modality) for one in references] == [
            ("left, lower\nlobe", "X-ray"),
            ("", "CT"),
        ]
        assert references[0].prompt_source == "datalist"
    with pytest.raises(CaseError, match="has no texts under text_key 'report'"):
        read_manifest(table, "report")


def test_without_texts_those_beside_the_images_count(images: Path) -> None:
    (images / "in" / "a.txt").write_text("the right lung")
    references, _ = collect_cases(write(images / "list.txt", "in/a.png\nin/b c.png\n"))
    assert [one.prompt for one in references] == ["the right lung", ""]


def test_a_path_that_does_not_exist_costs_itself_alone(images: Path) -> None:
    references, failures = collect_cases(write(images / "list.txt", "in/a.png\nin/gone.png\nhttps://x/y.png"))
    assert [one.id for one in references] == ["a"]
    assert [one.id for one in failures] == ["gone", "y"]
    assert all("does not exist" in one.error for one in failures)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("list.txt", "\n# nothing\n", "names no images"),
        ("list.txt", "Mrs Miller has an infection", "line 1 names no file"),
        ("list.csv", "in/a.png\nin/b c.png\n", "has no column 'image'"),
        ("list.csv", "", "has no column 'image'"),
        ("list.csv", "image,text\nin/a.png,a,b\n", "line 2 has more cells than the head"),
        ("list.csv", "image,text\n,a\n", "line 2 has no 'image'"),
        ("list.csv", 'image\n"in/a.png\n', "is no table"),
        ("list.csv", "image,modality\nin/a.png,MRI\n", "is not a modality known here"),
        ("list.csv", "image,text\nin/a.png,x\nin/a.png,y\n", "lists an image again with different values"),
        ("list.jsonl", '{"image": "in/a.png"}\n{"image"', "line 2 is not valid JSON"),
        ("list.jsonl", "[1]\n", "line 1 is not an object"),
        ("list.jsonl", '{"image": 3}\n', "'image' in line 1 is not a file path"),
        ("list.jsonl", "[" * 100_000, "line 1 is not valid JSON"),
    ],
)
def test_what_is_no_list_is_refused(images: Path, name: str, text: str, words: str) -> None:
    with pytest.raises(CaseError) as caught:
        collect_cases(write(images / name, text))
    assert words in str(caught.value) and "Miller" not in str(caught.value)


def test_what_is_no_list_costs_itself_alone_where_there_is_more(images: Path) -> None:
    text = write(images / "in" / "a.txt", "infection in the left lung")
    references, failures = collect_cases([images / "in" / "a.png", text])
    assert [one.prompt for one in references] == ["infection in the left lung"]
    (failure,) = failures
    assert "names no file" in failure.error and failure.id != "a"


def test_a_list_has_no_splits(images: Path) -> None:
    with pytest.raises(CaseError, match="is a list without splits"):
        collect_cases(write(images / "list.txt", "in/a.png\n"), split="test")


def test_a_list_may_lie_in_a_folder_that_is_segmented(images: Path) -> None:
    write(images / "list.csv", "no list at all")
    write(images / "list.txt", "nor is this")
    references, failures = collect_cases(images)
    assert len(references) == 3 and failures == []
