"""Make a training set of volumes of one slice from CT pictures of which some organs are labelled.

``python scripts/partial_slices.py --datalist DATALIST --output DIR [--sources NAME ...]``. Entries have `image` (an
8-bit picture, the patient's right on its left), `label`, `source` and `labelled_classes`. Pictures hold neither
Hounsfield units nor a spacing: the window is that of the sources, narrow or wide, about which contrast is varied in
training, and the field of view is taken to be 384 mm. 'kidney, either side' becomes the left or the right one by the
half of the body that each piece lies in; a slice in which a piece crosses the middle is left out.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

#: HU that black and white stand for, by eye: fat, liver and contrast agent come to lie where they usually do.
NARROW, WIDE = (-80.0, 250.0), (-1000.0, 1000.0)
WIDE_SOURCES = ("3D-IRCADb", "AVT-aorta")
FIELD_OF_VIEW = 384.0  # mm
EITHER_KIDNEY = "kidney, either side"
SIDES = {"left kidney": 3, "right kidney": 4}


def main() -> int:
    """Write volumes, labels and the datalist."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--datalist", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--sources", nargs="*", help="take these alone")
    arguments = parser.parse_args()
    content = json.loads(arguments.datalist.read_text(encoding="utf-8"))
    names = {int(value): name for value, name in content["labels"].items() if int(value)}
    either = next((value for value, name in names.items() if name == EITHER_KIDNEY), None)
    labels = {value: name for value, name in names.items() if value != either}
    labels |= {value: name for name, value in SIDES.items()}
    arguments.output.mkdir(parents=True, exist_ok=True)
    entries, left_out = [], 0
    for entry in content["training"]:
        if arguments.sources and entry["source"] not in arguments.sources:
            continue
        folder = arguments.datalist.parent
        image = np.asarray(Image.open(folder / entry["image"]).convert("L"), dtype=np.float32)
        label = np.asarray(Image.open(folder / entry["label"])).astype(np.uint8)
        classes = [value for value in entry["labelled_classes"] if value != either]
        if either in entry["labelled_classes"]:
            sided = by_side(label == either, image)
            if sided is None:
                left_out += 1
                continue
            label = np.where(label == either, sided, label).astype(np.uint8)
            classes += SIDES.values()
        name = Path(entry["image"]).stem
        low, high = WIDE if entry["source"] in WIDE_SOURCES else NARROW
        files = (f"{name}.nii.gz", f"{name}_label.nii.gz")
        write(low + image * (high - low) / 255.0, arguments.output / files[0], np.int16)
        write(label, arguments.output / files[1], np.uint8)
        told = {
            "source": entry["source"],
            "patient": entry.get("patient"),
            "labelled_classes": sorted(classes),
        }
        entries.append({"image": files[0], "label": files[1], **told})
    datalist = {
        "name": f"{content['name']}, as volumes of one slice",
        "modality": "CT",
        "labels": {str(value): name for value, name in sorted(labels.items())},
        "training": entries,
    }
    text = json.dumps(datalist, indent=2) + "\n"
    (arguments.output / "datalist.json").write_text(text, encoding="utf-8")
    print(f"{len(entries)} slices, {left_out} left out")
    return 0


def by_side(kidneys: NDArray[np.bool_], image: NDArray[np.float32]) -> NDArray[np.uint8] | None:
    """Values of left and right kidney for each piece of (H, W); None where the body's middle runs through one."""
    body = ndimage.binary_opening(image > 0, iterations=2)
    columns = np.flatnonzero(body.any(axis=0))
    middle = float(columns[[0, -1]].mean()) if len(columns) else image.shape[1] / 2
    pieces, count = ndimage.label(kidneys)
    sided = np.zeros(kidneys.shape, dtype=np.uint8)
    for number in range(1, count + 1):
        across = np.flatnonzero((pieces == number).any(axis=0))
        if across[0] < middle < across[-1]:
            return None
        sided[pieces == number] = SIDES["left kidney" if across[0] >= middle else "right kidney"]
    return sided


def write(picture: NDArray[np.generic], path: Path, kind: type[np.generic]) -> None:
    """(H, W), the patient's right and front first, as a volume of one slice."""
    spacing = FIELD_OF_VIEW / picture.shape[0]
    affine = np.diag([-spacing, -spacing, 3.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(picture.T[..., None].round().astype(kind), affine), path)


if __name__ == "__main__":
    sys.exit(main())
