"""Segment built-in samples, each with a prompt, with the shipped weights and compare the masks with the ground truth.

``python scripts/demo.py [--output DIR]``. The samples are synthetic, a CT, a chest X-ray and an H&E tile, made
from seeds that no training uses: patient data may not be in the repository, and their ground truth is known exactly.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import nibabel  # noqa: E402
import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from PIL import Image  # noqa: E402

from bundle.cases import MODALITIES, CaseReference, collect_cases, read_label  # noqa: E402
from bundle.cases.structures import Structures, shipped_structures  # noqa: E402
from bundle.commands.main import main as bundle_command  # noqa: E402
from bundle.phantoms import write_phantoms  # noqa: E402
from bundle.scoring import score_masks, summarise  # noqa: E402

#: Seeds for training begin at 1000.
SEEDS = {"CT": 3, "X-ray": 4, "H&E": 0}
#: What is asked for; the X-ray brings a report of its own.
PROMPTS = {"CT": "the liver, the spleen and both kidneys", "H&E": "outline every nucleus"}
ASKED = {
    "CT": ("liver", "spleen", "left kidney", "right kidney"),
    "X-ray": ("COVID-19 infection",),
    "H&E": ("nucleus",),
}


def written_mask(folder: Path) -> NDArray[np.uint8]:
    """The mask of a case folder, in the input's own grid."""
    volume = folder / "mask.nii.gz"
    if volume.exists():
        return np.asarray(nibabel.load(volume).dataobj, dtype=np.uint8)
    return np.asarray(Image.open(folder / "mask.png"), dtype=np.uint8)


def dice(reference: CaseReference, folder: Path, structures: Structures) -> float:
    """Mean Dice in per cent over the structures that were asked for."""
    asked = ASKED[str(reference.modality)]
    labels = {
        value: (structures.value(name), name) for value, name in reference.labels.items() if name in asked
    }
    figures = summarise(score_masks(reference.id, written_mask(folder), read_label(reference), labels))
    return float(figures["dice"])


def main() -> int:
    """Make, segment, compare; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("out/demo"), metavar="DIR")
    output = parser.parse_args().output
    structures = shipped_structures()
    print("making the samples ...", flush=True)
    lists = [
        write_phantoms(
            output / "samples" / modality.replace("&", ""), modality, [SEEDS[modality]], split="demo"
        )
        for modality in MODALITIES
    ]
    references, _ = collect_cases([*lists])
    prompts = {
        reference.id: PROMPTS.get(str(reference.modality), reference.prompt) for reference in references
    }
    prompt_file = output / "prompts.json"
    prompt_file.write_text(json.dumps(prompts, indent=2) + "\n", encoding="utf-8")
    print("segmenting them ...", flush=True)
    results = output / "results"
    code = bundle_command(
        ["segment", *map(str, lists), "--output", str(results), "--prompt-file", str(prompt_file)]
    )
    if code:
        return code
    for reference in references:
        figure = dice(reference, results / reference.id, structures)
        print(f"{reference.modality}, {prompts[reference.id]!r}")
        print(f"  Dice with the ground truth {figure:5.1f} %   {results / reference.id / 'preview.png'}")
    print(f"all of it on one page: {results / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
