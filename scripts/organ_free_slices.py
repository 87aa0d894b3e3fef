"""Make a training set of slices that show none of a data set's structures.

``python scripts/organ_free_slices.py --image CT.nii.gz --slices 0:58 --like DATALIST --output DIR``. Volumes that were
cropped around their organs teach nothing of the rest of the body; slices of it, with background as their label, do.
The range counts voxels along the third axis and is the user's word that nothing in it is one of the structures.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import nibabel
import numpy as np


def main() -> None:
    """Crop, and write image, empty label and datalist."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--slices", required=True, metavar="FIRST:LAST", help="LAST is left out")
    parser.add_argument(
        "--like", type=Path, required=True, help="datalist whose labels are known to be absent"
    )
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    first, last = map(int, arguments.slices.split(":"))
    cropped = nibabel.load(arguments.image).slicer[:, :, first:last]
    arguments.output.mkdir(parents=True, exist_ok=True)
    nibabel.save(cropped, arguments.output / "image.nii.gz")
    empty = nibabel.Nifti1Image(np.zeros(cropped.shape, dtype=np.uint8), cropped.affine)
    nibabel.save(empty, arguments.output / "label.nii.gz")
    like = json.loads(arguments.like.read_text(encoding="utf-8"))
    datalist = {
        "name": f"slices {arguments.slices} of {arguments.image.name}, without any structure",
        "modality": like["modality"],
        "labels": like["labels"],
        "training": [{"image": "image.nii.gz", "label": "label.nii.gz"}],
    }
    (arguments.output / "datalist.json").write_text(json.dumps(datalist, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
