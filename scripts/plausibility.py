"""How often results are flagged, of good cases and of spoiled ones: python scripts/plausibility.py ../shared/data

With --films FILE it makes the chest films that pictures are compared with, of training images alone.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
from PIL import Image, ImageDraw

from bundle.cases import CaseReference, read_case, read_label
from bundle.cases.case import Case
from bundle.cases.structures import shipped_structures
from bundle.results.picture_kind import reduced
from bundle.results.plausibility import Flag, flags_of

STRUCTURES = shipped_structures()
GOOD = (
    ("xray_covid", "X-ray", ("training", "validation", "test")),
    ("xray_lungs", "X-ray", ("training",)),
    ("histology_nuclei", "H&E", ("training", "validation")),
    ("histology_more", "H&E", ("training",)),
    ("ct_abdomen", "CT", ("training", "validation")),
    ("ct_lung", "CT", ("training", "validation")),
)
#: Slices of CT as pictures, which are taken for X-rays: each should be flagged.
SLICES = (("ct_abdomen_partial", "X-ray", ("training",)), ("ct_lung_2d", "X-ray", ("training",)))
DIRECTIONS = 8


def references(data: Path, folder: str, modality: Any, lists: tuple[str, ...]) -> Iterator[CaseReference]:
    content = json.loads((data / folder / "datalist.json").read_text())
    names = {int(value): name for value, name in content["labels"].items() if value != "0"}
    for entry in (entry for name in lists for entry in content[name]):
        image, label = (data / folder / entry[key] for key in ("image", "label"))
        yield CaseReference(image.name, image, label, modality=modality, labels=names)


def flags(case: Case, mask: np.ndarray | None = None) -> list[Flag]:
    names = {value: name for value, name in case.reference.labels.items() if STRUCTURES.get(name) is not None}
    shape = case.array.shape[1:]
    mask = np.zeros(shape, np.uint8) if mask is None else np.where(np.isin(mask, [*names]), mask, 0)
    return flags_of(case, mask.astype(np.uint8), names, STRUCTURES)


def picture(image: np.ndarray, modality: Any) -> Case:
    """An RGB or grey image as a case."""
    grey = (
        image.astype(np.float32)
        if image.ndim == 2
        else image[..., :3].astype(np.float32) @ [0.299, 0.587, 0.114]
    )
    colour = np.repeat(image[..., None], 3, axis=-1) if image.ndim == 2 else image[..., :3]
    array = grey[None] if modality == "X-ray" else colour.transpose(2, 0, 1)
    return Case(
        CaseReference("x", Path("x")), array.astype(np.float32), None, modality, "option", full_scale=255.0
    )


def screen(colour: bool) -> np.ndarray:
    image = Image.new("RGB", (800, 600), (236, 238, 241))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 800, 40), fill=(44, 62, 120) if colour else (70, 70, 70))
    for row in range(9):
        draw.rectangle(
            (20, 60 + 58 * row, 180, 105 + 58 * row), fill=(200, 120, 190) if colour else (210, 210, 210)
        )
        draw.text((210, 70 + 58 * row), "Name, date of birth, ward, finding: " * 2, fill=(20, 20, 20))
    return np.asarray(image)


def letter() -> np.ndarray:
    image = Image.new("RGB", (700, 990), "white")
    draw = ImageDraw.Draw(image)
    for row in range(60):
        draw.text(
            (60, 60 + 14 * row),
            "We saw this patient on the second of May, and found nothing wrong. " * 2,
            fill=0,
        )
    return np.asarray(image)


def ball(case: Case, at_mm: np.ndarray, volume_ml: float) -> np.ndarray:
    """A mask of a ball, of which (4,) mm is the middle."""
    assert case.affine is not None
    grid = np.indices(case.array.shape[1:]).reshape(3, -1)
    place = case.affine[:3, :3] @ grid + case.affine[:3, 3:]
    inside = np.linalg.norm(place - at_mm[:, None], axis=0) <= (volume_ml * 1000 * 0.75 / np.pi) ** (1 / 3)
    return inside.reshape(case.array.shape[1:])


def spoiled(data: Path) -> Iterator[tuple[str, Case, np.ndarray | None]]:
    known = {one.id: one for folder in GOOD[4:] for one in references(data, *folder)}

    def volume(name: str) -> tuple[Case, np.ndarray]:
        return read_case(known[name]), read_label(known[name])

    def scaled(case: Case, by: float) -> Case:
        assert case.affine is not None
        return replace(case, affine=case.affine * [[by, by, by, 1]])

    def mirrored(case: Case, mask: np.ndarray, axis: int) -> tuple[Case, np.ndarray]:
        return replace(case, array=np.flip(case.array, axis + 1)), np.flip(mask, axis)

    def exchanged(mask: np.ndarray, one: int, other: int) -> np.ndarray:
        return np.where(mask == one, other, np.where(mask == other, one, mask))

    abdomen = ("case0037.nii.gz", "case0005.nii.gz", "case0009.nii.gz")
    for name in abdomen[:2]:
        case, mask = volume(name)
        for by in (0.1, 0.5, 2.0):
            yield f"spacing x {by} {name}", scaled(case, by), mask
        for offset in (-1024, 1024):
            yield f"HU {offset:+} {name}", replace(case, array=case.array + offset), mask
        yield f"upside down {name}", *mirrored(case, mask, 2)
        yield f"kidneys exchanged {name}", case, exchanged(mask, 3, 4)
    for name in abdomen:
        yield f"mirrored {name}", *mirrored(*volume(name), 0)
    case, mask = volume(abdomen[0])
    yield "liver and spleen exchanged", case, exchanged(mask, 5, 7)
    tiny = mask.copy()
    tiny[(mask == 2) & (np.cumsum(mask == 2).reshape(mask.shape) > 13)] = 0
    yield "gallbladder of 0.13 ml", case, tiny
    apart = mask.copy()
    apart[60:75, 100:115, 5:15] = 7
    yield "spleen in two places", case, apart
    name = "Case_003.nii.gz"
    case, mask = volume(name)
    reference = replace(case.reference, labels={4: "right kidney", 9: "lung"})
    case = replace(case, reference=reference)
    assert case.affine is not None
    lung = np.argwhere(mask == 1)
    middle, top = ((case.affine @ [*place, 1])[:3] for place in (lung.mean(0), lung[lung[:, 2].argmax()]))
    for where, at in (("shoulder", np.array([150.0, middle[1], top[2]])), ("lung", middle)):
        yield (
            f"right kidney of 24 ml in the {where}",
            case,
            np.where(ball(case, at, 24.0), 4, 9 * (mask == 1)),
        )
    rng = np.random.default_rng(0)
    pictures: Mapping[str, np.ndarray] = {
        **{
            name: getattr(skimage.data, name)()
            for name in ("astronaut", "coffee", "chelsea", "camera", "coins", "moon")
        },
        "page": skimage.data.page(),
        "screen": screen(True),
        "grey screen": screen(False),
        "letter": letter(),
        "empty": np.full((500, 400), 30, np.uint8),
        "noise": rng.normal(100, 20, (500, 400)).clip(0, 255).astype(np.uint8),
    }
    for name, image in pictures.items():
        yield f"X-ray: {name}", picture(image, "X-ray"), None
        yield f"H&E: {name}", picture(image, "H&E"), None


def make_films(data: Path, path: Path) -> None:
    chosen = random.Random(0).sample([*references(data, "xray_covid", "X-ray", ("training",))], 1500)
    films = np.array([reduced(read_case(one).array[0]) for one in chosen])
    films = np.concatenate([films, films.reshape(-1, 16, 16)[..., ::-1].reshape(len(films), -1)])
    mean = films.mean(0)
    directions = np.linalg.svd(films - mean, full_matrices=False)[2][:DIRECTIONS]
    np.save(path, np.vstack([mean, directions]).astype(np.float32))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--films", type=Path)
    arguments = parser.parse_args()
    if arguments.films:
        make_films(arguments.data, arguments.films)
    for folder, modality, lists in (*GOOD, *SLICES):
        for name in lists:
            kinds: Counter[str] = Counter()
            flagged = cases = 0
            for reference in references(arguments.data, folder, modality, (name,)):
                found = flags(read_case(reference), read_label(reference))
                cases, flagged = cases + 1, flagged + bool(found)
                kinds.update(one.kind for one in found)
                if modality != "X-ray":
                    for one in found:
                        print(f"  {reference.id}: {one.text}")
            print(f"{folder} {name}: {flagged} of {cases} flagged {dict(kinds)}", flush=True)
    caught: list[bool] = []
    for title, case, mask in spoiled(arguments.data):
        found = flags(case, mask)
        caught.append(bool(found))
        print(f"{title}: {' '.join(one.text for one in found) or 'NOT FLAGGED'}", flush=True)
    print(f"spoiled: {sum(caught)} of {len(caught)} flagged")


if __name__ == "__main__":
    main()
