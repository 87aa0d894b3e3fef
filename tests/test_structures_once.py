"""A structure stands once, in configs/structures.yaml: a twelfth one in a copy is seen everywhere."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import yaml
from monai.bundle import ConfigWorkflow

from bundle.cases import Case, CaseReference
from bundle.cases.structures import SHIPPED, Structures, shipped_structures
from bundle.inference.prompts import prompt_warnings
from bundle.learning import PromptDrawer
from bundle.networks.prompt_reading import PromptReading
from bundle.results.dicom.codes import display_colour, structure_codes
from bundle.results.prediction import Prediction
from bundle.results.report import build_report
from bundle.wording import all_terms

METADATA = SHIPPED.with_name("metadata.json")
TWELFTH = """
- name: thymus
  modality: CT
  colour: [12, 200, 34]
  code: {type: ["9875009", Thymus]}
  kind: solid
  synonyms: [thymic gland, {text: organ of the anterior mediastinum, held_out: true}]
"""


def described_otherwise(metadata: Mapping[str, Any], structures: Structures) -> list[str]:
    """What metadata.json says of the channels that does not follow from the structures."""
    output = metadata["network_data_format"]["outputs"]["pred"]
    expected = {
        "channel_def": {"0": "background", **{str(one.value): one.name for one in structures}},
        "num_channels": structures.channels,
    }
    wrong = [key for key, value in expected.items() if output[key] != value]
    classes = f"a probability for background and each of {len(structures)} structures"
    return wrong + ["pred_classes"] * (metadata["pred_classes"] != classes)


@pytest.fixture
def twelve(tmp_path: Path) -> Path:
    path = tmp_path / "structures.yaml"
    shutil.copyfile(SHIPPED, path)
    with path.open("a", encoding="utf-8") as stream:
        stream.write(TWELFTH)
    return path


def test_metadata_follow_from_the_structures(twelve: Path) -> None:
    metadata = json.loads(METADATA.read_text(encoding="utf-8"))
    assert described_otherwise(metadata, shipped_structures()) == []
    assert described_otherwise(metadata, Structures(twelve)) == [
        "channel_def",
        "num_channels",
        "pred_classes",
    ]


def test_a_twelfth_structure_is_seen_everywhere(
    twelve: Path, workflow: Callable[..., ConfigWorkflow]
) -> None:
    parser = workflow("inference.yaml", structures=str(twelve), read_text=True).parser
    structures: Structures = parser.get_parsed_content("structure_set")
    network = parser.get_parsed_content("network_def")
    assert structures.value("thymus") == 12 and structures.channels == network.denoiser.classes == 13
    assert len(structures) == network.naming.score.out_features == 12
    # report, and with it the page
    case = Case(
        CaseReference("a", Path("a.nii.gz")), np.zeros((1, 4, 4, 4), np.float32), np.eye(4), "CT", "file"
    )
    mask, grey = np.full((4, 4, 4), 12, np.uint8), np.full((4, 4, 4), 0.5, np.float32)
    prediction = Prediction(case, mask, grey[None], grey, {12: "thymus"}, structures=structures)
    label = build_report(prediction)["labels"]["thymus"]
    assert label["value"] == 12 and label["colour"] == [12, 200, 34]
    # DICOM
    codes = structure_codes("thymus", structures)
    assert (codes.type.value, codes.type.scheme_designator) == ("9875009", "SCT")
    lab = display_colour("thymus", structures)
    np.testing.assert_allclose(lab.to_rgb(clip=True), (12, 200, 34), atol=2)
    # wording of prompts, and what is kept to test their reading
    term = all_terms(structures)["thymus"]
    assert {"thymus", "thymic gland"} <= set(term.phrasings)
    assert term.held_out == ("organ of the anterior mediastinum",)
    drawer = PromptDrawer(structures, silent=0.0, own=0.0, reworded=0.0, foreign=0.0)
    drawn = [drawer.for_image("CT", "", Random(seed)) for seed in range(600)]
    named = [prompt for prompt in drawn if "thymic gland" in prompt.text.lower()]
    assert named and all(12 in prompt.channels for prompt in named)
    # the list of names on the terminal
    *_, warning = prompt_warnings(PromptReading("bicycle", channels=()), structures, "CT")
    assert warning.endswith("lung, thymus.")


def test_a_network_learns_structures_of_ones_own_from_such_a_file_alone(
    workflow: Callable[..., ConfigWorkflow], segment: Any, phantoms: dict[str, Path], tmp_path: Path
) -> None:
    """Phantoms whose ground truth has other names than the bundle's: trained on, evaluated, segmented and named."""
    names = {"1": "blob", "5": "bulk"}
    datalist = json.loads(phantoms["CT"].read_text(encoding="utf-8"))
    own = {value: names.get(value, f"part {value}") for value in datalist["labels"] if value != "0"}
    folder = tmp_path / "data"
    shutil.copytree(phantoms["CT"].parent, folder)
    (folder / "datalist.json").write_text(json.dumps({**datalist, "labels": own}), encoding="utf-8")
    file = tmp_path / "my.yaml"
    file.write_text(yaml.safe_dump([{"name": name, "modality": "CT"} for name in own.values()]))
    output = tmp_path / "training"
    workflow(
        "train.yaml",
        datalist=str(folder / "datalist.json"),
        structures=str(file),
        output_dir=str(output),
        epochs=1,
        images_per_epoch=8,
        batch_size=4,
        image_size=64,
        num_workers=0,
        progress=False,
        bfloat16=False,
    ).run()
    case = folder / datalist["test"][0]["image"]
    options = ("--output", tmp_path / "out", "--structures", file)
    assert segment(case, *options, weights=output / "model.pt") == 0
    [report] = [json.loads(path.read_text()) for path in (tmp_path / "out").glob("*/report.json")]
    assert {label["value"]: name for name, label in report["labels"].items()} == {
        int(value): name for value, name in own.items()
    }
