"""Pictures without labels are listed with the masks that a network will give them, and nothing of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from bundle.cases.datalist import read_datalist

ROOT = Path(__file__).resolve().parents[2]


def ask(datalist: Path, output: Path, labelled: str = "few") -> subprocess.CompletedProcess[str]:
    script = str(ROOT / "scripts" / "pseudo_labels.py")
    command = [sys.executable, script, str(datalist), "--labelled", labelled, "--output", str(output)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def data_set(folder: Path, few: list[str]) -> Path:
    """Three H&E tiles that all have labels and texts, of which `few` may be used."""
    entries = []
    for number in range(3):
        name = f"tile{number}.png"
        nuclei = np.hypot(*(np.mgrid[:96, :96] % 48 - 24)) < 11
        Image.fromarray(np.where(nuclei[..., None], (95, 60, 130), (225, 170, 200)).astype(np.uint8)).save(
            folder / name
        )
        Image.fromarray(np.ones((96, 96), dtype=bool)).save(folder / f"truth{number}.png")
        entries.append({"image": name, "label": f"truth{number}.png", "text": f"secret {number}"})
    content = {"modality": "H&E", "labels": {"0": "background", "1": "nucleus"}, "training": entries}
    path = folder / "datalist.json"
    path.write_text(json.dumps({**content, "few": few}))
    return path


def test_neither_labels_nor_texts_of_unlabelled_pictures_come_along(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    datalist = data_set(tmp_path / "data", ["tile1.png"])
    done = ask(datalist, tmp_path / "pseudo")
    assert done.returncode == 0, done.stderr
    listed = tmp_path / "pseudo" / "datalist.json"
    written = listed.read_text()
    assert "secret" not in written and "truth" not in written
    entries = read_datalist(listed, "few")
    assert [entry.image.name for entry in entries] == ["tile0.png", "tile2.png"]
    assert all(entry.image.is_file() and entry.modality == "H&E" and not entry.text for entry in entries)
    plain = read_datalist(listed, "unlabelled")
    assert [entry.image for entry in plain] == [entry.image for entry in entries]
    assert all(entry.label is None and not entry.text for entry in plain)


def test_truth_is_what_segmenting_the_list_writes(tmp_path: Path) -> None:
    """Masks of a run over the list are where it says they are, with the values that it says they have."""
    (tmp_path / "data").mkdir()
    assert ask(data_set(tmp_path / "data", ["tile1.png"]), tmp_path / "pseudo").returncode == 0
    listed = tmp_path / "pseudo" / "datalist.json"
    command = [sys.executable, "-m", "bundle", "segment", str(listed), "--split", "unlabelled"]
    done = subprocess.run(
        [*command, "--output", str(tmp_path / "pseudo")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for entry in read_datalist(listed, "few"):
        assert entry.label is not None
        assert set(np.unique(np.asarray(Image.open(entry.label)))) == {0, *entry.labels}
        report = json.loads((entry.label.parent / "report.json").read_text())
        assert {value["value"]: name for name, value in report["labels"].items()} == dict(entry.labels)


def test_a_list_that_leaves_nothing_out_is_refused(tmp_path: Path) -> None:
    datalist = data_set(tmp_path, ["tile0.png", "tile1.png", "tile2.png"])
    done = ask(datalist, tmp_path / "pseudo")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and "leaves nothing out" in done.stderr
    assert not (tmp_path / "pseudo").exists()


def test_a_list_whose_name_means_something_else_is_refused(tmp_path: Path) -> None:
    datalist = data_set(tmp_path, ["tile0.png"])
    for name in ("training", "validation", "unlabelled"):
        done = ask(datalist, tmp_path / "pseudo", name)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ") and f"'{name}' cannot name the labelled part" in done.stderr
    assert not (tmp_path / "pseudo").exists()
