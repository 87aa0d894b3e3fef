"""What training sees depends on (seed, epoch, position) alone, is drawn by share and rarity, and is checked first."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from bundle.cases import CaseError
from bundle.cases.structures import Structures, shipped_structures
from bundle.commands.command_line import sentence_for
from bundle.learning import (
    TrainingImages,
    by_size,
    drawing,
    prepare_batch,
    training_references,
    worker_threads,
)
from bundle.learning.dataset import draw_weights
from bundle.learning.drawing import stable_seed
from bundle.transforms import augmentation, preprocessing
from tests.support.grids import SMALL_GRIDS

ROOT = Path(__file__).resolve().parents[2]
STRUCTURES = shipped_structures()
CLASSES = STRUCTURES.channels


def images(*datalists: Path, structures: Structures = STRUCTURES, **options: Any) -> TrainingImages:
    return TrainingImages(
        training_references(list(datalists), options.pop("split", "training")),
        preprocessing(
            structures,
            SMALL_GRIDS,
        ),
        augmentation(64),
        structures,
        **{"images_per_epoch": 24, "progress": False, **options},
    )


@pytest.fixture(scope="module")
def three(phantoms: dict[str, Path]) -> TrainingImages:
    return images(*phantoms.values())


def batches(dataset: TrainingImages, epoch: int, workers: int) -> list[dict[str, Any]]:
    dataset.set_epoch(epoch)
    return list(DataLoader(dataset, batch_size=4, num_workers=workers, worker_init_fn=worker_threads))


def equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(one[key], other[key]) if isinstance(one[key], Tensor) else one[key] == other[key]
        for key in one
    )


# --- what is drawn ---------------------------------------------------------------------------------------


def test_worker_processes_change_nothing(three: TrainingImages) -> None:
    without, with_two = batches(three, 2, 0), batches(three, 2, 2)
    assert len(without) == len(with_two) == 6
    assert all(map(equal, without, with_two))


def test_the_order_of_access_changes_nothing(three: TrainingImages) -> None:
    three.set_epoch(3)
    forward = [three[position] for position in range(8)]
    np.random.seed(1)
    torch.manual_seed(1)
    backward = [three[position] for position in reversed(range(8))]
    assert all(map(equal, forward, reversed(backward)))


def test_epochs_positions_and_seeds_differ(three: TrainingImages, phantoms: dict[str, Path]) -> None:
    first = batches(three, 1, 0)
    second = batches(three, 2, 0)
    assert all(map(equal, first, batches(three, 1, 0)))
    assert not any(map(equal, first, second))
    noises = torch.cat([batch["noise"].flatten(1)[:, :50] for batch in first + second])
    assert len(noises.unique(dim=0)) == len(noises)
    one, other = (images(phantoms["X-ray"], seed=seed) for seed in (0, 1))
    assert not equal(one[0], other[0])
    assert not torch.equal(one.plan, other.plan)


def test_a_training_image_is_what_the_network_expects(three: TrainingImages) -> None:
    three.set_epoch(1)
    for position in range(len(three)):
        item = three[position]
        assert item["image"].shape == (3, 64, 64) and item["image"].dtype == torch.float32
        # below 0 lies what is darker than a CT window
        lowest = 0.0 if item["standalone"] else -1.0
        assert float(item["image"].min()) >= lowest and float(item["image"].max()) <= 1.0
        assert item["label"].shape == (64, 64) and item["label"].dtype == torch.int64
        assert item["noise"].shape == (CLASSES, 64, 64)
        assert abs(float(item["noise"].mean())) < 0.02 and abs(float(item["noise"].std()) - 1) < 0.02
        assert item["possible"][item["labelled"]].all()
        assert item["labelled"][item["label"].unique()].all()


def test_shares_of_the_datalists_are_kept(phantoms: dict[str, Path]) -> None:
    shares = [0.6, 0.3, 0.1]
    dataset = images(*phantoms.values(), images_per_epoch=20_000, shares=shares)
    modalities = ["CT", "X-ray", "H&E"]
    drawn = [dataset.items[dataset.units[int(unit)][0]]["modality"] for unit in dataset.plan]
    for modality, share in zip(modalities, shares, strict=True):
        # 20 000 draws: three standard deviations are at most one in a hundred
        assert drawn.count(modality) / len(drawn) == pytest.approx(share, abs=0.0105)


def test_rare_classes_are_drawn_more_often() -> None:
    shown = torch.zeros(100, 3, dtype=torch.bool)
    shown[:, 0] = True
    shown[10:, 1] = True
    shown[:5, 2] = True  # 1 of 20, but no more than ten times the median
    weights = draw_weights(shown, torch.zeros(100, dtype=torch.long), [1.0])
    assert float(weights.sum()) == pytest.approx(1.0)
    common = float(weights[50])
    assert float(weights[7]) == pytest.approx(common * 0.9)  # background alone
    assert float(weights[0]) == pytest.approx(common * 10.0)
    drawn = torch.multinomial(weights, 20_000, replacement=True, generator=torch.Generator().manual_seed(0))
    assert float((drawn < 5).double().mean()) == pytest.approx(float(weights[:5].sum()), abs=0.01)
    assert float((drawn < 5).double().mean()) > 5 * 0.05


def test_weights_of_groups_are_their_shares_whatever_their_sizes() -> None:
    shown = torch.ones(12, 2, dtype=torch.bool)
    group = torch.tensor([0] * 10 + [1] * 2)
    weights = draw_weights(shown, group, [1.0, 3.0])
    assert float(weights[group == 0].sum()) == pytest.approx(1.0)
    assert float(weights[group == 1].sum()) == pytest.approx(3.0)


# --- labels ----------------------------------------------------------------------------------------------


def test_labels_are_mapped_by_name(phantoms: dict[str, Path], tmp_path: Path) -> None:
    names = json.loads(phantoms["CT"].read_text())["labels"]
    reordered = Structures(
        [
            {"name": name, "modality": "CT"}
            for value, name in sorted(names.items(), reverse=True)
            if int(value)
        ]
    )
    dataset = images(phantoms["CT"], structures=reordered)
    source = np.asarray(nibabel.load(dataset.references[0].label).dataobj)  # type: ignore[attr-defined]
    mapped = dataset.items[0]["label"][0].numpy()
    assert len(np.unique(source)) > 3
    for value in np.unique(source):
        expected = 0 if value == 0 else reordered.value(names[str(value)])
        # the phantoms stand on the grid they are resampled to
        assert np.array_equal(mapped == expected, source == value)


def test_flags_say_which_classes_are_labelled_and_which_are_possible(three: TrainingImages) -> None:
    for unit in range(len(three.items)):
        item, reference = three.items[unit], three.references[unit]
        named = {0, *(STRUCTURES.value(name) for name in reference.labels.values())}
        assert set(item["labelled"].nonzero().flatten().tolist()) == named
    three.set_epoch(1)
    for position in range(8):
        item = three.items[three.units[int(three.plan[position])][0]]
        of_modality = {0, *STRUCTURES.of_modality(item["modality"])}
        assert set(three[position]["possible"].nonzero().flatten().tolist()) == of_modality


def test_a_class_that_the_data_do_not_name_is_possible_but_not_labelled(copied: Path) -> None:
    def keep_the_liver(content: dict[str, Any]) -> None:
        value = next(key for key, name in content["labels"].items() if name == "liver")
        for entry in content["training"]:
            label: Any = nibabel.load(copied.parent / entry["label"])  # type: ignore[attr-defined]
            liver = (np.asarray(label.dataobj) == int(value)).astype(np.uint8)
            nibabel.save(nibabel.Nifti1Image(liver, label.affine), copied.parent / entry["label"])  # type: ignore[attr-defined, no-untyped-call]
        content["labels"] = {"1": "liver"}

    change(copied, keep_the_liver)
    dataset = images(copied)
    item = dataset[0]
    liver, spleen, nucleus = (STRUCTURES.value(name) for name in ("liver", "spleen", "nucleus"))
    assert item["labelled"].nonzero().flatten().tolist() == [0, liver]
    assert item["possible"][[0, liver, spleen]].all() and not item["possible"][nucleus]
    assert set(dataset.items[0]["label"].unique().tolist()) == {0, liver}


def test_class_weights_count_every_pixel(phantoms: dict[str, Path]) -> None:
    dataset = images(phantoms["H&E"])
    counted = sum(int((item["label"] == STRUCTURES.value("nucleus")).sum()) for item in dataset.items)
    assert int(dataset.pixels[STRUCTURES.value("nucleus")]) == counted > 0
    assert int(dataset.pixels.sum()) == sum(item["label"].numel() for item in dataset.items)
    weights = dataset.class_weights()
    assert weights[STRUCTURES.value("nucleus")] > weights[0]


def test_the_target_reaches_the_trainer_as_it_was_drawn(three: TrainingImages) -> None:
    batch = batches(three, 1, 0)[0]
    image, target, arguments, named = prepare_batch(batch, "cpu")
    assert torch.equal(image, batch["image"]) and arguments == ()
    assert named["target"] is target and torch.equal(named["noise"], batch["noise"])
    assert named["prompts"] == batch["prompt"] and len(batch["prompt"]) == 4
    assert torch.equal(target.label, batch["label"]) and torch.equal(target.possible, batch["possible"])


def test_images_of_several_sizes_are_batches_of_one_size_each(phantoms: dict[str, Path]) -> None:
    dataset = images(*phantoms.values())
    dataset.augmentation = augmentation({"CT": 64, "X-ray": 64, "H&E": 96})
    items = [dataset[position] for position in range(len(dataset))]
    drawn = prepare_batch(by_size(items), "cpu")
    histology = [item for item in items if item["image"].shape[-1] == 96]
    assert 0 < len(histology) < len(items)
    needs = drawn[3]["parts"]
    for place, (side, shown) in enumerate({64: len(items) - len(histology), 96: len(histology)}.items()):
        image, target, needed = drawn[0][place], drawn[1][place], needs[place]
        of_this_size = [item for item in items if item["image"].shape[-1] == side]
        assert image.shape == (shown, 3, side, side) and needed["target"] is target
        assert needed["prompts"] == [item["prompt"] for item in of_this_size]
        assert torch.equal(target.label, torch.stack([item["label"] for item in of_this_size]))
    assert torch.equal(by_size(histology)["image"], drawn[0][1])


# --- texts -----------------------------------------------------------------------------------------------


def test_images_come_with_the_text_of_their_case(three: TrainingImages) -> None:
    three.set_epoch(1)
    for position in range(len(three)):
        reference = three.references[three.units[int(three.plan[position])][0]]
        assert three[position]["prompt"] == reference.prompt
        assert bool(reference.prompt) == (reference.modality != "CT")


def test_dropped_texts_change_nothing_else(phantoms: dict[str, Path]) -> None:
    kept, dropped, none, again = (
        [dataset[position] for position in range(64)]
        for dataset in (
            images(phantoms["X-ray"], images_per_epoch=64, text_dropout=share)
            for share in (0.0, 0.5, 1.0, 0.5)
        )
    )
    assert all(map(equal, dropped, again))
    assert all(item["prompt"] for item in kept) and not any(item["prompt"] for item in none)
    assert 16 <= sum(item["prompt"] == "" for item in dropped) <= 48
    for one, *others in zip(kept, dropped, none, strict=True):
        assert all(equal({**other, "prompt": one["prompt"]}, one) for other in others)
        assert all(other["prompt"] in ("", one["prompt"]) for other in others)


def test_which_texts_are_dropped_depends_on_epoch_and_position_alone(phantoms: dict[str, Path]) -> None:
    dataset = images(phantoms["X-ray"], text_dropout=0.5)
    first, second = batches(dataset, 1, 0), batches(dataset, 2, 0)
    assert all(map(equal, first, batches(dataset, 1, 2)))
    dropped = [[text == "" for batch in one for text in batch["prompt"]] for one in (first, second)]
    assert dropped[0] != dropped[1] and any(dropped[0]) and not all(dropped[0])


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_of_dropped_texts_that_is_none_is_refused(share: float, phantoms: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="text_dropout"):
        images(phantoms["X-ray"], text_dropout=share)


def test_networks_that_denoise_nothing_need_no_noise(phantoms: dict[str, Path]) -> None:
    with_noise, without = (images(phantoms["X-ray"], noise=noise) for noise in (True, False))
    for one, other in zip(batches(with_noise, 1, 0), batches(without, 1, 0), strict=True):
        del one["noise"]
        assert equal(one, other)
        assert set(prepare_batch(other, "cpu")[3]) == {"target", "prompts"}


def test_a_list_of_names_trains_on_the_entries_it_names(phantoms: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(phantoms["X-ray"].parent, tmp_path / "data")
    datalist = tmp_path / "data" / "datalist.json"
    content = json.loads(datalist.read_text())
    chosen = [content["training"][2], content["training"][0]]
    change(datalist, lambda content: content.update(few=[entry["image"] for entry in chosen]))
    dataset = images(datalist, split="few")
    assert [reference.prompt for reference in dataset.references] == [entry["text"] for entry in chosen]
    assert [reference.label for reference in dataset.references] == [
        datalist.parent / entry["label"] for entry in chosen
    ]
    for entry in content["training"]:
        entry["other"] = f"other words: {entry['text']}"
    datalist.write_text(json.dumps(content))
    (group,) = training_references(datalist, "training", text_key="other")
    assert all(reference.prompt.startswith("other words: ") for reference in group)


def test_seeds_are_the_same_in_every_process() -> None:
    assert stable_seed(0, 1, "draws") == 3225928327802917931
    assert len({stable_seed(seed, epoch) for seed in range(20) for epoch in range(20)}) == 400


# --- errors before training begins -----------------------------------------------------------------------


@pytest.fixture
def copied(phantoms: dict[str, Path], tmp_path: Path) -> Path:
    shutil.copytree(phantoms["CT"].parent, tmp_path / "data")
    return tmp_path / "data" / "datalist.json"


def change(datalist: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(datalist.read_text())
    edit(content)
    datalist.write_text(json.dumps(content))


def missing_label(datalist: Path) -> str:
    name = json.loads(datalist.read_text())["training"][1]["label"]
    (datalist.parent / name).unlink()
    return Path(name).name


def entry_without_label(datalist: Path) -> str:
    change(datalist, lambda content: content["training"][1].pop("label"))
    return Path(json.loads(datalist.read_text())["training"][1]["image"]).name


def unlisted_value(datalist: Path) -> str:
    change(datalist, lambda content: content["labels"].pop("1"))
    return "label"


def unknown_structure(datalist: Path) -> str:
    change(datalist, lambda content: content["labels"].update({"1": "left ear"}))
    return "left ear"


def no_names(datalist: Path) -> str:
    change(datalist, lambda content: content.pop("labels"))
    return "to the datalist"


def empty_split(datalist: Path) -> str:
    change(datalist, lambda content: content.update(training=[]))
    return "training"


def broken_image(datalist: Path) -> str:
    name = json.loads(datalist.read_text())["training"][2]["image"]
    path = datalist.parent / name
    path.write_bytes(path.read_bytes()[:300])
    return path.name


@pytest.mark.parametrize(
    "spoil",
    [
        missing_label,
        entry_without_label,
        unlisted_value,
        unknown_structure,
        no_names,
        empty_split,
        broken_image,
    ],
)
def test_training_does_not_begin_on_part_of_its_data(copied: Path, spoil: Callable[[Path], str]) -> None:
    named = spoil(copied)
    with pytest.raises(Exception) as caught:  # noqa: B017, PT011 - MONAI wraps what a transform raises
        images(copied)
    sentence = sentence_for(caught.value)
    assert named in sentence
    assert sentence.endswith(".") and "Traceback" not in sentence and "\n" not in sentence
    assert str(copied.parent) in sentence


def test_a_missing_datalist_and_shares_that_do_not_fit_are_refused(phantoms: dict[str, Path]) -> None:
    with pytest.raises(CaseError, match="--datalist"):
        training_references(None, "training")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="datalist_shares"):
        images(phantoms["CT"], shares=[0.5, 0.5])
    with pytest.raises(ValueError, match="no training case"):
        TrainingImages([], preprocessing(STRUCTURES), augmentation(64), STRUCTURES, 1)


# --- views -----------------------------------------------------------------------------------------------


def test_volumes_are_drawn_in_every_view_in_equal_parts(
    phantoms: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "_LEAST_SIDE", 8)
    dataset = images(phantoms["CT"], phantoms["X-ray"], views=["axial", "sagittal"], images_per_epoch=2000)
    drawn = [dataset.units[int(unit)] for unit in dataset.plan]
    counts = {
        view: sum(unit.view == view for unit in drawn if unit.place is not None) for view in dataset.views
    }
    assert sum(counts.values()) == pytest.approx(1000, abs=100)
    assert counts["axial"] == pytest.approx(counts["sagittal"], abs=100)
    item = dataset.items[0]
    unit = next(
        unit for unit in dataset.units if unit.view == "sagittal" and unit.case == 0 and unit.place == 5
    )
    assert torch.equal(unit.of(item["label"]), item["label"][:, 5])
    for position in range(8):
        shown = dataset[position]
        assert shown["image"].shape == (3, 64, 64) and shown["label"].shape == (64, 64)


def test_of_a_few_slices_no_other_view_is_drawn(tmp_path: Path, phantoms: dict[str, Path]) -> None:
    dataset = images(phantoms["CT"], views=["axial", "coronal"])
    assert {unit.view for unit in dataset.units} == {"axial"}  # ten slices


# --- what is labelled --------------------------------------------------------------------------------------


def test_of_an_entry_only_its_labelled_classes_are_known(tmp_path: Path, phantoms: dict[str, Path]) -> None:
    content = json.loads(phantoms["CT"].read_text())
    shutil.copytree(phantoms["CT"].parent, tmp_path / "ct")
    liver = next(int(value) for value, name in content["labels"].items() if name == "liver")
    entry = content["training"][0]
    label = tmp_path / "ct" / entry["label"]
    volume = nibabel.load(label)
    kept = np.where(np.asarray(volume.dataobj) == liver, liver, 0).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(kept, volume.affine), label)
    content["training"] = [{**entry, "labelled_classes": [liver]}, content["training"][1]]
    (tmp_path / "ct" / "datalist.json").write_text(json.dumps(content))
    one, other = images(tmp_path / "ct" / "datalist.json").items
    assert one["labelled"].nonzero().flatten().tolist() == [0, STRUCTURES.value("liver")]
    names = [name for name in content["labels"].values() if STRUCTURES.knows(name)]
    assert int(other["labelled"].sum()) == len(names) + 1
