"""`bundle.Segmenter`: the masks of `tpseg segment`, whatever the image comes as, from any thread."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from monai.transforms import LoadImage
from PIL import Image

from bundle import SegmentationError, Segmenter
from bundle.commands.main import main
from tests.support.dicom_series import write_ct

PROMPT = "the liver and the spleen"


@pytest.fixture(scope="module")
def inputs(phantoms: dict[str, Path]) -> dict[str, Path]:
    """Modality -> image."""
    return {
        modality: path.parent / json.loads(path.read_text())["test"][0]["image"]
        for modality, path in phantoms.items()
    }


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter(device="cpu")


@pytest.fixture(scope="module")
def by_command(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Modality -> folder that `tpseg segment` has written."""
    folders = {}
    for modality, path in inputs.items():
        output = tmp_path_factory.mktemp("command")
        arguments = ["segment", str(path), "--output", str(output), "--device", "cpu", "--no-progress"]
        assert main([*arguments, *(["--prompt", PROMPT] if modality == "CT" else [])]) == 0
        folders[modality] = next(one for one in output.iterdir() if one.is_dir())
    return folders


@pytest.mark.parametrize("modality", ["CT", "X-ray", "H&E"])
def test_files_are_those_of_the_command(
    modality: str,
    inputs: dict[str, Path],
    by_command: dict[str, Path],
    segmenter: Segmenter,
    tmp_path: Path,
) -> None:
    result = segmenter(inputs[modality], prompt=PROMPT if modality == "CT" else None)
    folder = result.save(tmp_path)
    expected = by_command[modality]
    assert {one.name for one in folder.iterdir()} == {one.name for one in expected.iterdir()}
    kind = "nii.gz" if modality == "CT" else "png"
    for name in ("mask", "probability", "uncertainty"):
        assert (folder / f"{name}.{kind}").read_bytes() == (expected / f"{name}.{kind}").read_bytes()
    report = json.loads((expected / "report.json").read_text())
    assert result.report["labels"] == report["labels"]
    assert result.report["found"] and result.mask.any()
    assert result.probability.shape == (len(result.labels), *result.mask.shape)
    assert result.uncertainty.shape == result.mask.shape
    assert (result.affine is None) == (modality != "CT")


def images_of(path: Path) -> dict[str, tuple[Any, dict[str, Any]]]:
    """A volume as libraries hold it, and what else a call needs."""
    SimpleITK = pytest.importorskip("SimpleITK")
    image: Any = nibabel.load(path)
    array = np.asarray(image.dataobj)
    return {
        "path as text": (str(path), {}),
        "nibabel": (image, {}),
        "MetaTensor": (LoadImage(image_only=True, ensure_channel_first=True)(path), {}),
        "MetaTensor without channel": (LoadImage(image_only=True)(path), {}),
        "MetaTensor of ITK": (LoadImage("ITKReader", image_only=True, ensure_channel_first=True)(path), {}),
        "SimpleITK": (SimpleITK.ReadImage(str(path)), {}),
        "array and affine": (array, {"affine": image.affine}),
    }


def test_volumes_in_memory_have_the_masks_of_their_files(
    inputs: dict[str, Path], by_command: dict[str, Path], segmenter: Segmenter
) -> None:
    expected = np.asarray(nibabel.load(by_command["CT"] / "mask.nii.gz").dataobj)  # type: ignore[attr-defined]
    for kind, (image, options) in images_of(inputs["CT"]).items():
        result = segmenter(image, prompt=PROMPT, **options)
        assert np.array_equal(result.mask, expected), kind
        assert np.allclose(result.affine, nibabel.load(inputs["CT"]).affine, atol=1e-3), kind  # type: ignore[attr-defined]


def test_an_array_with_a_spacing_lies_as_is_said_of_it(inputs: dict[str, Path], segmenter: Segmenter) -> None:
    canonical: Any = nibabel.as_closest_canonical(nibabel.load(inputs["CT"]))
    array = np.asarray(canonical.dataobj)
    before = array.copy()
    spacing = [float(one) for one in canonical.header.get_zooms()]
    by_spacing = segmenter(array, prompt=PROMPT, spacing=spacing)
    by_affine = segmenter(array, prompt=PROMPT, affine=np.diag([*spacing, 1.0]))
    assert np.array_equal(by_spacing.mask, by_affine.mask) and by_spacing.mask.any()
    assert any("R, A, S" in warning for warning in by_spacing.report["warnings"])
    assert np.array_equal(array, before), "the caller's array stays as it is"


@pytest.mark.parametrize("modality", ["X-ray", "H&E"])
def test_pictures_in_memory_have_the_masks_of_their_files(
    modality: str, inputs: dict[str, Path], by_command: dict[str, Path], segmenter: Segmenter
) -> None:
    SimpleITK = pytest.importorskip("SimpleITK")
    path = inputs[modality]
    with Image.open(path) as picture:
        array = np.asarray(picture)
    held = {
        "array": array,
        "MetaTensor": LoadImage(image_only=True, ensure_channel_first=True)(path),
        "SimpleITK": SimpleITK.ReadImage(str(path)),
    }
    expected = np.asarray(Image.open(by_command[modality] / "mask.png"))
    for kind, image in held.items():
        assert np.array_equal(segmenter(image).mask, expected), kind


def test_a_result_in_memory_is_saved_under_its_name(
    inputs: dict[str, Path], segmenter: Segmenter, tmp_path: Path
) -> None:
    image: Any = nibabel.load(inputs["CT"])
    folder = segmenter(image, prompt="liver", name="patient 7").save(tmp_path)
    assert folder == tmp_path / "patient 7"
    saved: Any = nibabel.load(folder / "mask.nii.gz")
    assert np.array_equal(saved.affine, image.affine)


def test_several_prompts_of_one_image_are_those_one_by_one(
    inputs: dict[str, Path], segmenter: Segmenter
) -> None:
    prompts = ["liver", "the spleen"]
    together = list(segmenter.many([inputs["CT"]], prompts))
    for prompt, result in zip(prompts, together, strict=True):
        assert result.report["prompt"] == prompt
        assert np.array_equal(result.mask, segmenter(inputs["CT"], prompt=prompt).mask)


def test_of_many_images_those_that_fail_are_told_of_and_the_rest_goes_on(
    inputs: dict[str, Path], segmenter: Segmenter, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    errors: list[SegmentationError] = []
    results = list(segmenter.many([broken, np.zeros((4, 4, 4)), inputs["X-ray"]], on_error=errors.append))
    assert len(results) == 1 and results[0].prediction.case.modality == "X-ray"
    assert str(broken.name) in str(errors[0]) and "spacing" in str(errors[1])
    with pytest.raises(SegmentationError, match=r"broken\.png"):
        list(segmenter.many([broken, inputs["X-ray"]]))


def test_threads_share_a_segmenter(inputs: dict[str, Path], segmenter: Segmenter) -> None:
    paths = [inputs["X-ray"], inputs["H&E"]] * 3
    alone = [segmenter(path).mask for path in paths[:2]] * 3
    with ThreadPoolExecutor(4) as pool:
        side_by_side = list(pool.map(lambda path: segmenter(path).mask, paths))
    assert all(np.array_equal(one, other) for one, other in zip(alone, side_by_side, strict=True))


def test_a_folder_of_a_dicom_series(segmenter: Segmenter, tmp_path: Path) -> None:
    write_ct(tmp_path / "series")
    result = segmenter(tmp_path / "series", prompt=PROMPT)
    assert result.report["source_series"] and result.affine is not None
    assert (result.save(tmp_path / "out") / "mask.nii.gz").is_file()


@pytest.mark.parametrize(
    ("image", "options", "sentence"),
    [
        ("no_such_file.nii.gz", {}, "no_such_file"),
        (np.zeros((4, 4, 4)), {}, "give affine or spacing"),
        (np.zeros((20, 20, 20)), {"spacing": (1, 1)}, "three lengths"),
        (np.zeros((20, 20, 20)), {"affine": np.eye(3)}, r"\(4, 4\)"),
        (np.zeros((20, 20, 20)), {"affine": np.eye(4), "spacing": (1, 1, 1)}, "give one of them"),
        (np.full((20, 20, 20), np.nan), {"spacing": (1, 1, 1)}, "not finite"),
        (np.zeros((20, 20), dtype=complex), {}, "type that is not known"),
        (object(), {}, "type that is not known"),
        (np.zeros((8, 8)), {}, "too small"),
        (np.zeros((40, 40)), {"modality": "CT"}, "is a picture"),
    ],
)
def test_what_cannot_be_used_is_said_in_a_sentence(
    image: Any, options: dict[str, Any], sentence: str, segmenter: Segmenter
) -> None:
    with pytest.raises(SegmentationError, match=sentence):
        segmenter(image, **options)


def test_settings_are_the_options_of_the_command(
    inputs: dict[str, Path], segmenter: Segmenter, tmp_path: Path
) -> None:
    other = Segmenter(device="cpu", steps=2, xray_mirrored=False)
    assert other(inputs["X-ray"]).report["settings"]["steps"] == 2
    assert other(inputs["X-ray"]).report["settings"]["mirrored"] is False
    make: Callable[..., Segmenter] = Segmenter
    with pytest.raises(TypeError, match="did you mean steps"):
        make(step=2)
    with pytest.raises(TypeError, match="no setting jobs"):
        make(jobs=2)
    with pytest.raises(ValueError, match="expression"):
        make(structures="$print('evaluated')")
    with pytest.raises(ValueError, match="no such weights file"):
        Segmenter(weights=tmp_path / "none.pt")
