"""List a data set's unlabelled pictures, and as their labels the masks that segmenting them will write.

``python scripts/pseudo_labels.py DATALIST --labelled few_shot_training --output FOLDER`` writes FOLDER/datalist.json:
the pictures of ``training`` that the list ``few_shot_training`` does not name, without their own labels and texts. Its
list ``unlabelled`` is to be segmented into FOLDER; in its list ``few_shot_training`` the masks made so are the labels,
for a training that is given both datalists (pseudo-labels, Lee 2013; a student that sees varied images where its
teacher saw plain ones, Xie et al. 2020, arXiv 1911.04252)::

    python -m monai.bundle run --config_file configs/inference.yaml --input FOLDER/datalist.json --split unlabelled \\
      --weights TEACHER --output_dir FOLDER
    python -m monai.bundle run \\
      --config_file "['configs/inference.yaml','configs/train.yaml','configs/data_<set>.yaml']" \\
      --datalist "['DATALIST','FOLDER/datalist.json']" --datalist_shares "[0.4,0.6]" --split few_shot_training \\
      --output_dir STUDENT
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bundle.cases.datalist import read_datalist  # noqa: E402
from bundle.cases.errors import CaseError  # noqa: E402
from bundle.cases.ids import case_ids  # noqa: E402
from bundle.cases.structures import Structures, shipped_structures  # noqa: E402


def pseudo_labelled(datalist: Path, labelled: str, structures: Structures) -> dict[str, object]:
    """The datalist of the pictures that `labelled` does not name.

    Args:
        datalist: the data set's; its list ``training`` holds all pictures, of one modality.
        labelled: the list of those whose labels may be used.
        structures: whose values the masks will have.

    Raises:
        CaseError: no datalist, `labelled` is a list's name with a meaning of its own, no picture is unlabelled, or they
            have no modality or several.
    """
    if labelled in ("training", "validation", "unlabelled"):
        raise CaseError(
            datalist, f"{labelled!r} cannot name the labelled part", "give that list another name"
        )
    known = {entry.image for entry in read_datalist(datalist, labelled)}
    unlabelled = [entry for entry in read_datalist(datalist, "training") if entry.image not in known]
    if not unlabelled:
        raise CaseError(
            datalist, f"leaves nothing out: '{labelled}' names all of 'training'", "name a part of it"
        )
    modalities = {entry.modality for entry in unlabelled}
    modality = modalities.pop()
    if modalities or modality not in ("X-ray", "H&E"):
        raise CaseError(
            datalist, "is not of X-rays or of H&E alone", "state 'modality', one for all pictures"
        )
    ids = case_ids([entry.image for entry in unlabelled])
    entries = [{"image": str(entry.image), "label": f"{ids[entry.image]}/mask.png"} for entry in unlabelled]
    return {
        "name": f"pictures of {datalist.parent.name} that {labelled} leaves out, labelled by a network",
        "modality": modality,
        "labels": {str(value): name for value, name in structures.of_modality(modality).items()},
        "unlabelled": [{"image": entry["image"]} for entry in entries],
        labelled: entries,
        # not for choosing: a training has to be given such a list of every datalist
        "validation": entries[:1],
    }


def main() -> int:
    """Write the datalist; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("datalist", type=Path)
    parser.add_argument(
        "--labelled", required=True, metavar="LIST", help="list of the pictures that have labels"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    arguments = parser.parse_args()
    structures = shipped_structures()
    try:
        content = pseudo_labelled(arguments.datalist, arguments.labelled, structures)
    except CaseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "datalist.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
