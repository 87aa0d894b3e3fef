"""Synthetic studies: repeatable, varied, anatomically placed, and true to their own sentence."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from bundle.phantoms import (
    CT_LABELS,
    Phantom,
    ct_phantom,
    histology_phantom,
    histology_sentence,
    infection_sentence,
    write_phantoms,
    xray_phantom,
)
from bundle.phantoms.sentences import COUNT_WORDS

SMALL_CT: dict[str, Any] = {"shape": (36, 32, 24), "spacing": (10.0, 9.0, 8.0)}
SEEDS = range(5)


# Anatomy does not matter where only types, repetition and storage are tested.
TINY_CT: dict[str, Any] = {"shape": (18, 16, 12), "spacing": (20.0, 18.0, 16.0)}


def tiny_ct(seed: int) -> Phantom:
    return ct_phantom(seed, **TINY_CT)


def small_ct(seed: int) -> Phantom:
    return ct_phantom(seed, **SMALL_CT)


def small_xray(seed: int) -> Phantom:
    return xray_phantom(seed, size=96)


def small_histology(seed: int) -> Phantom:
    return histology_phantom(seed, size=128)


MAKERS: list[Callable[[int], Phantom]] = [tiny_ct, small_xray, small_histology]


@pytest.fixture(scope="module")
def torsos() -> list[Phantom]:
    return [small_ct(seed) for seed in SEEDS]


@pytest.fixture(scope="module")
def films() -> list[Phantom]:
    return [small_xray(seed) for seed in range(20)]


@pytest.mark.parametrize("make", MAKERS)
def test_same_seed_gives_same_bytes_and_another_seed_differs(make: Callable[[int], Phantom]) -> None:
    first, again, other = make(3), make(3), make(4)
    assert first.image.tobytes() == again.image.tobytes()
    assert first.label.tobytes() == again.label.tobytes()
    assert first.text == again.text
    assert not np.array_equal(first.image, other.image)
    assert not np.array_equal(first.label, other.label)


@pytest.mark.parametrize("make", MAKERS)
def test_types_and_shapes(make: Callable[[int], Phantom]) -> None:
    study = make(1)
    spatial = study.image.shape if study.affine is not None else study.image.shape[:2]
    assert study.label.shape == spatial
    assert study.label.dtype == np.uint8
    assert study.image.dtype == (np.int16 if study.modality == "CT" else np.uint8)
    assert set(np.unique(study.label)) <= {0, *study.labels}
    assert (study.affine is None) == (study.modality != "CT")


def centre_mm(study: Phantom, value: int) -> np.ndarray:
    """Centre of a structure in RAS+ mm: x is positive on the patient's right."""
    assert study.affine is not None
    index = np.append(np.argwhere(study.label == value).mean(axis=0), 1.0)
    return np.asarray((study.affine @ index)[:3])


def test_every_structure_is_there_and_on_its_side(torsos: list[Phantom]) -> None:
    for study in torsos:
        assert set(np.unique(study.label)) == {0, *CT_LABELS}
        assert study.affine is not None
        assert nib.aff2axcodes(study.affine) == ("L", "P", "S")
        at = {name: centre_mm(study, value) for value, name in CT_LABELS.items()}
        # x in RAS+ grows to the patient's right.
        assert at["left kidney"][0] < -30 and at["right kidney"][0] > 30
        assert at["spleen"][0] < -40 and at["stomach"][0] < 0
        assert at["liver"][0] > 15 and at["gallbladder"][0] > 10
        assert at["stomach"][1] > at["spleen"][1]
        assert at["pancreas"][1] > at["left kidney"][1]
        assert at["lung"][2] > at["liver"][2] > at["right kidney"][2]


def test_hounsfield_ranges(torsos: list[Phantom]) -> None:
    # Medians over three contrast phases: from weak enhancement to late arterial.
    ranges = {
        "aorta": (80, 300), "gallbladder": (-10, 50), "left kidney": (90, 230), "right kidney": (90, 230),
        "liver": (50, 135), "pancreas": (30, 130), "spleen": (60, 150), "stomach": (-960, 280),
        "lung": (-900, -740),
    }  # fmt: skip
    for study in torsos:
        for value, name in CT_LABELS.items():
            low, high = ranges[name]
            assert low < np.median(study.image[study.label == value]) < high, name
        assert study.image.min() >= -1024
        assert np.median(study.image[:2]) < -950
        assert study.image.max() > 350


def test_patients_vary(torsos: list[Phantom]) -> None:
    liver = np.array([(study.label == 5).sum() for study in torsos])
    assert liver.std() / liver.mean() > 0.08
    aorta = [np.median(study.image[study.label == 1]) for study in torsos]
    assert np.ptp(aorta) > 30


def test_sentence_agrees_with_truth(films: list[Phantom]) -> None:
    assert any(not film.label.any() for film in films)
    for film in films:
        count = ndimage.label(film.label, np.ones((3, 3)))[1]
        if count == 0:
            assert film.text == "no pulmonary infection."
            continue
        middle = film.label.shape[1] // 2
        halves = {"left": film.label[:, :middle], "right": film.label[:, middle:]}
        assert film.text.startswith(
            "bilateral" if all(half.any() for half in halves.values()) else "unilateral"
        )
        assert f"{COUNT_WORDS[count]} infected area" in film.text
        rows = {}
        for side, half in halves.items():
            assert (f"{side} lung" in film.text) == bool(half.any())
            if half.any():
                zones = re.search(
                    rf"(\w+(?: \w+)*) {side} lung", film.text.split(", ")[-1].replace(" and ", ", ")
                )
                assert zones is not None
                rows[side] = (zones.group(1).split(), np.nonzero(half)[0].mean() / len(half))
        for zones_named, height in rows.values():
            if zones_named == ["upper"]:
                assert height < 0.5
            if zones_named == ["lower"]:
                assert height > 0.4


def test_sentence_wording() -> None:
    truth = np.zeros((90, 90), np.uint8)
    span = (0.0, 90.0)
    assert infection_sentence(truth, span, span) == "no pulmonary infection."
    truth[65:80, 10:30] = 1
    expected = "unilateral pulmonary infection, one infected area, lower left lung."
    assert infection_sentence(truth, span, span) == expected
    truth[5:85, 60:80] = 1
    expected = "bilateral pulmonary infection, two infected areas, lower left lung and all right lung."
    assert infection_sentence(truth, span, span) == expected
    truth[5:25, 10:30] = 1
    expected = (
        "bilateral pulmonary infection, three infected areas, upper lower left lung and all right lung."
    )
    assert infection_sentence(truth, span, span) == expected


def test_opacities_are_brighter_than_the_healthy_side(films: list[Phantom]) -> None:
    differences = []
    for film in films:
        truth = film.label > 0
        mirrored = truth[:, ::-1] & ~truth
        if film.text.startswith("unilateral"):
            differences.append(film.image[truth].mean() - np.quantile(film.image[mirrored], 0.4))
    assert len(differences) > 2
    assert np.median(differences) > 5


def test_nuclei_are_darker_than_their_surroundings() -> None:
    shares = []
    for seed in SEEDS:
        study = small_histology(seed)
        nuclei = study.label > 0
        shares.append(nuclei.mean())
        assert study.image[nuclei].mean() < study.image[~nuclei].mean() - 15
    assert max(shares) > 2 * min(shares) > 0


def test_histology_sentence() -> None:
    truth = np.zeros((80, 80), np.uint8)
    assert histology_sentence(truth) == "No nuclei are visible."
    truth[::4, ::4] = 1
    assert histology_sentence(truth) == "The nuclei are sparsely distributed."
    truth[::2, ::2] = 1
    assert histology_sentence(truth) == "The nuclei are evenly distributed."
    truth[40:, 40:] = 1
    assert histology_sentence(truth) == "The nuclei density in the lower right is high."


@pytest.mark.parametrize(
    ("modality", "size", "make"),
    [
        ("CT", TINY_CT, tiny_ct),
        ("X-ray", {"size": 96}, small_xray),
        ("H&E", {"size": 128}, small_histology),
    ],
)
def test_data_set_round_trip(tmp_path: Path, modality: Any, size: dict[str, Any], make: Any) -> None:
    path = write_phantoms(tmp_path / "set", modality, [5], **size)
    write_phantoms(tmp_path / "set", modality, [6], split="validation", **size)
    write_phantoms(tmp_path / "set", modality, [7], split="training", **size)
    datalist = json.loads(path.read_text())
    assert datalist["modality"] == modality and datalist["labels"]["0"] == "background"
    assert [len(datalist[split]) for split in ("training", "validation")] == [1, 1]
    for split, seed in (("training", 7), ("validation", 6)):
        entry, study = datalist[split][0], make(seed)
        image, label = path.parent / entry["image"], path.parent / entry["label"]
        assert entry.get("text", "") == study.text
        if modality == "CT":
            stored, truth = nib.load(image), nib.load(label)
            assert np.array_equal(stored.affine, study.affine) and np.array_equal(truth.affine, study.affine)
            assert (stored.get_data_dtype(), truth.get_data_dtype()) == (np.int16, np.uint8)
            assert np.array_equal(np.asarray(stored.dataobj), study.image)
            assert np.array_equal(np.asarray(truth.dataobj), study.label)
        else:
            assert np.array_equal(np.asarray(Image.open(image)), study.image)
            assert np.array_equal(np.asarray(Image.open(label)), study.label)
    assert not list(tmp_path.rglob(".*")), "a temporary file is left"


def test_wrong_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shape"):
        ct_phantom(0, shape=(4, 64, 64))
    with pytest.raises(ValueError, match="spacing"):
        ct_phantom(0, spacing=(0.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="64 pixels"):
        xray_phantom(0, size=10)
    with pytest.raises(ValueError, match="64 pixels"):
        histology_phantom(0, size=10)
    with pytest.raises(ValueError, match="modality"):
        write_phantoms(tmp_path, "MR", [1])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no seed"):
        write_phantoms(tmp_path, "X-ray", [])
    write_phantoms(tmp_path, "X-ray", [1], size=64)
    with pytest.raises(ValueError, match="another folder"):
        write_phantoms(tmp_path, "H&E", [1], size=64)


def test_command_writes_a_folder_per_modality(tmp_path: Path) -> None:
    script = Path(__file__).resolve().parents[2] / "scripts" / "make_phantoms.py"
    command = [sys.executable, str(script), "--output", str(tmp_path), "--modality", "X-ray", "--count", "1"]
    subprocess.run(command, check=True, capture_output=True)
    assert len(json.loads((tmp_path / "xray" / "datalist.json").read_text())["training"]) == 1


def test_an_enlarged_spleen_is_larger_and_the_rest_of_the_patient_stays() -> None:
    size = {"shape": (96, 96, 32), "spacing": (4.0, 4.0, 6.0)}
    normal, enlarged = ct_phantom(3, **size), ct_phantom(3, **size, spleen=2.0)  # type: ignore[arg-type]
    volume = [int((phantom.label == 7).sum()) for phantom in (normal, enlarged)]
    assert volume[1] > 3 * volume[0]
    for value in (1, 9):  # aorta and lung
        kept = ((normal.label == value) & (enlarged.label == value)).sum() / (normal.label == value).sum()
        assert kept > 0.9
    with pytest.raises(ValueError, match="spleen must be a factor from 1 to 2.5, not 4"):
        ct_phantom(3, **size, spleen=4)  # type: ignore[arg-type]
