"""configs/evaluate.yaml gives the figures of the masks that segmenting writes, and survives unusable truths."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile
from monai.bundle import ConfigWorkflow
from PIL import Image

from bundle.cases import collect_cases, read_case, read_label
from bundle.cases.structures import Structures
from bundle.commands.command_line import sentence_for
from bundle.scoring import Score, metrics_csv, score_cells, score_masks, summarise
from bundle.scoring.instances import connected_pieces


def read_mask(folder: Path) -> np.ndarray:
    if (folder / "mask.png").exists():
        with Image.open(folder / "mask.png") as picture:
            return np.array(picture)
    volume: Any = nibabel.load(folder / "mask.nii.gz")  # type: ignore[attr-defined]
    return np.asarray(volume.dataobj)


def evaluate(workflow: Callable[..., ConfigWorkflow], datalist: Path, output: Path, **options: Any) -> int:
    made = workflow("evaluate.yaml", datalist=str(datalist), output_dir=str(output), **options)
    try:
        made.run()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.mark.parametrize("modality", ["CT", "H&E"])
def test_the_figures_are_those_of_the_masks_that_segmenting_writes(
    modality: str,
    tiny: Any,
    segment: Callable[..., int],
    workflow: Callable[..., ConfigWorkflow],
    phantoms: dict[str, Path],
    tmp_path: Path,
) -> None:
    datalist = phantoms[modality]
    assert segment(datalist, "--split", "test", "--output", tmp_path / "masks", weights=tiny.trained) == 0
    assert evaluate(workflow, datalist, tmp_path / "figures", weights=str(tiny.trained)) == 0

    structures: Structures = workflow("inference.yaml").parser.get_parsed_content("structure_set")
    scores: list[Score] = []
    references, _ = collect_cases(datalist, split="test")
    for reference in references:
        labels = {value: (structures.value(name), name) for value, name in reference.labels.items()}
        case = read_case(reference)
        mask = read_mask(tmp_path / "masks" / reference.id)
        axis = case.head_foot_axis
        truth = read_label(reference)
        own = score_masks(reference.id, mask, truth, labels, case.spacing, slice_axis=axis)
        if modality == "H&E":
            found = tifffile.imread(tmp_path / "masks" / reference.id / "instances.tif").astype(np.int32)
            cells = score_cells(found, connected_pieces(truth > 0), "connected pieces")
            own = [replace(score, cells=cells) for score in own]
        scores += own
    assert len(scores) >= 3 and any(score.predicted for score in scores)
    assert (tmp_path / "figures" / "metrics.csv").read_text() == metrics_csv(scores)
    summary = json.loads((tmp_path / "figures" / "summary.json").read_text())
    assert (summary["split"], summary["cases"]) == ("test", 3)
    assert summary["text"] == {"off": summarise(scores)}
    if modality == "H&E":
        # seconds of training are enough to prove that image, truth and mask belong together
        assert summary["text"]["off"]["dice"] > 30
    record = json.loads((tmp_path / "figures" / "run.json").read_text())
    assert [entry["status"] for entry in record["cases"]] == ["done"] * 3


def test_numbered_cells_of_a_datalist_are_what_cells_are_compared_with(
    tiny: Any, workflow: Callable[..., ConfigWorkflow], phantoms: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(phantoms["H&E"].parent, tmp_path / "data")
    datalist = tmp_path / "data" / "datalist.json"
    content = json.loads(datalist.read_text())
    pieces = {}
    for number, entry in enumerate(content["test"]):
        with Image.open(tmp_path / "data" / entry["label"]) as label:
            pieces[Path(entry["image"]).stem] = connected_pieces(np.array(label) > 0)
        numbers = pieces[Path(entry["image"]).stem] * 300
        entry["instances"] = f"cells{number}.png"
        Image.fromarray(numbers.astype(np.uint16)).save(tmp_path / "data" / entry["instances"])
    Image.new("L", (5, 5)).save(tmp_path / "data" / content["test"][2]["instances"])
    datalist.write_text(json.dumps(content))
    assert evaluate(workflow, datalist, tmp_path / "out", weights=str(tiny.trained)) == 1
    record = json.loads((tmp_path / "out" / "run.json").read_text())["cases"]
    assert [entry["status"] for entry in record] == ["done", "done", "failed"]
    assert "cells2.png" in record[2]["error"] and "5 x 5" in record[2]["error"]
    nuclei = json.loads((tmp_path / "out" / "summary.json").read_text())["text"]["off"]["per_label"][
        "nucleus"
    ]
    assert nuclei["instances"]["reference"] == "instances"
    done = [Path(entry["image"]).stem for entry in content["test"][:2]]
    assert nuclei["instances"]["truth_cells"] == sum(int(pieces[name].max()) for name in done)
    assert nuclei["instances"]["aji"] > 0


def test_distances_are_given_only_where_the_spacing_is_true(
    tiny: Any, workflow: Callable[..., ConfigWorkflow], phantoms: dict[str, Path], tmp_path: Path
) -> None:
    options = {"weights": str(tiny.random), "spacing_is_true": False}
    assert evaluate(workflow, phantoms["CT"], tmp_path, **options) == 0
    with (tmp_path / "metrics.csv").open() as stream:
        assert {row["hd95_mm"] for row in csv.DictReader(stream)} == {""}
    assert json.loads((tmp_path / "summary.json").read_text())["text"]["off"]["hd95_mm"] is None


def test_a_truth_that_cannot_be_used_fails_its_case_alone(
    tiny: Any, workflow: Callable[..., ConfigWorkflow], phantoms: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(phantoms["X-ray"].parent, tmp_path / "data")
    datalist = tmp_path / "data" / "datalist.json"
    entries = json.loads(datalist.read_text())["test"]
    Image.new("L", (96, 50)).save(tmp_path / "data" / entries[0]["label"])
    Image.new("L", (96, 96), 77).save(tmp_path / "data" / entries[1]["label"])
    code = evaluate(workflow, datalist, tmp_path / "out", weights=str(tiny.random))
    assert code == 1
    record = json.loads((tmp_path / "out" / "run.json").read_text())["cases"]
    assert [entry["status"] for entry in record] == ["failed", "failed", "done"]
    for entry, described in zip(record, entries[:2], strict=False):
        assert Path(described["label"]).name in entry["error"] and entry["error"].endswith(".")
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["cases"] == 1


@pytest.mark.parametrize(
    ("labels", "problem"),
    [({}, "no name is given"), ({"1": "left ear"}, "'left ear', which the network does not know")],
)
def test_labels_without_a_known_name_are_said_before_work_begins(
    labels: dict[str, str],
    problem: str,
    tiny: Any,
    workflow: Callable[..., ConfigWorkflow],
    phantoms: dict[str, Path],
    tmp_path: Path,
) -> None:
    shutil.copytree(phantoms["X-ray"].parent, tmp_path / "data")
    datalist = tmp_path / "data" / "datalist.json"
    datalist.write_text(json.dumps({**json.loads(datalist.read_text()), "labels": labels}))
    with pytest.raises(RuntimeError) as caught:
        evaluate(workflow, datalist, tmp_path / "out", weights=str(tiny.random))
    assert problem in sentence_for(caught.value)
    assert not (tmp_path / "out" / "run.json").exists()


def test_labels_of_another_modality_do_not_end_an_evaluation(
    tiny: Any,
    workflow: Callable[..., ConfigWorkflow],
    phantoms: dict[str, Path],
    tmp_path: Path,
) -> None:
    shutil.copytree(phantoms["X-ray"].parent, tmp_path / "data")
    datalist = tmp_path / "data" / "datalist.json"
    labels = {"0": "background", "1": "liver"}
    datalist.write_text(json.dumps({**json.loads(datalist.read_text()), "labels": labels}))
    assert evaluate(workflow, datalist, tmp_path / "out", weights=str(tiny.random)) == 0
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["cases"] == 3
