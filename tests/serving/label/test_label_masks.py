"""Masks that MONAI Label's server answers with are those of the command, voxel by voxel, however they are asked for."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import itk
import nibabel
import numpy as np
import pytest
import requests
import yaml

from tests.conftest import CONFIGS
from tests.serving.conftest import Orthanc
from tests.support.label_server import MODEL, PROMPTS, Server, read, session, started
from tests.support.pacs_node import phantom_series, wait_for

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("prompt", ["", *PROMPTS[:2]])
@pytest.mark.parametrize("kind", ["nifti", "turned", "png", "tile", "tiff"])
def test_masks_are_those_of_the_command(
    server: Server, command: Any, files: dict[str, Path], kind: str, prompt: str
) -> None:
    expected = command(kind, prompt)
    mask = server.mask(kind, **({"prompt": prompt} if prompt else {}))
    assert mask.dtype == np.uint8 and np.array_equal(mask, expected)
    if not prompt:
        assert mask.any() and (mask == 0).any(), "a mask of one value would prove little"


def test_the_mask_lies_where_the_image_does(server: Server, files: dict[str, Path], tmp_path: Path) -> None:
    image = nibabel.load(files["turned"])
    for extension in (".nii.gz", ".nrrd"):
        written = tmp_path / f"mask{extension}"
        written.write_bytes(server.infer("turned", result_extension=extension).content)
        found = itk.imread(written)
        lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine
        assert np.allclose(np.asarray(found.GetOrigin()), lps[:3, 3], atol=1e-3)
        columns = itk.array_from_matrix(found.GetDirection()) * np.asarray(found.GetSpacing())
        assert np.allclose(columns, lps[:3, :3], atol=1e-3)


@pytest.mark.parametrize("kind", ["nifti", "png", "tiff"])
def test_an_uploaded_file_and_one_in_a_session(
    server: Server, command: Any, files: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    path = files[kind]
    answer = requests.post(
        f"{server.url}/infer/{MODEL}",
        params={"output": "image"},
        data={"params": json.dumps({"prompt": "spleen"})},
        files={"file": (f"some{''.join(path.suffixes)}", path.read_bytes())},
        timeout=300,
    )
    expected = command(kind, "spleen")
    assert answer.status_code == 200 and np.array_equal(read(answer.content), expected), answer.text
    shutil.copy(path, tmp_path)
    key = session(server, tmp_path, packed=False)
    assert np.array_equal(server.mask(session=key, prompt="spleen"), expected)


@pytest.mark.parametrize("packed", [False, True])
def test_a_dicom_series_in_a_session(
    server: Server, command: Any, files: dict[str, Path], packed: bool
) -> None:
    key = session(server, files["dicom"], packed)
    for prompt in ("", "liver"):
        expected = command("dicom", prompt)
        assert np.array_equal(server.mask(session=key, **({"prompt": prompt} if prompt else {})), expected)
    assert requests.delete(f"{server.url}/session/{key}", timeout=60).status_code == 200


def test_a_series_with_a_missing_slice_is_refused_in_one_sentence(server: Server, tmp_path: Path) -> None:
    series = phantom_series(4)
    series.slices.pop(3)
    answer = server.infer(session=session(server, series.write(tmp_path / "series"), packed=True))
    assert answer.status_code == 422 and "\n" not in answer.json()["detail"]


def test_what_stands_beside_the_mask(server: Server) -> None:
    told = server.infer("png", output="json", prompt="xyzzy " * 9000).json()
    names = {entry["name"].lower(): value for value, entry in enumerate(STRUCTURES, start=1)}
    assert told["label_names"] == names
    assert told["modality"] == "X-ray" and any("cut" in warning for warning in told["warnings"])


STRUCTURES = yaml.safe_load((CONFIGS / "structures.yaml").read_text())


def test_sixteen_requests_at_once_get_the_answers_to_their_own_prompts(
    server: Server, command: Any, files: dict[str, Path]
) -> None:
    with ThreadPoolExecutor(16) as pool:
        masks = list(pool.map(lambda prompt: server.mask("nifti", prompt=prompt), PROMPTS))
    expected = [command("nifti", prompt) for prompt in PROMPTS]
    assert len({mask.tobytes() for mask in expected}) > 8, "prompts that do the same would prove little"
    assert all(np.array_equal(one, other) for one, other in zip(masks, expected, strict=True))


def test_batch_inference_goes_on_after_an_image_that_cannot_be_read(
    server: Server, command: Any, files: dict[str, Path]
) -> None:
    (server.studies / "broken.nii.gz").write_bytes(b"no image")
    try:
        wait_for(lambda: "broken" in requests.get(f"{server.url}/datastore/?output=all", timeout=60).text, 30)
        answer = requests.post(
            f"{server.url}/batch/infer/{MODEL}",
            params={"images": "all", "run_sync": True},
            json={"prompt": "spleen", "multi_gpu": True},
            timeout=600,
        )
    finally:
        (server.studies / "broken.nii.gz").unlink()
    assert answer.status_code == 200, answer.text
    assert "broken" in answer.json()["broken"]["error"]
    assert "a slide as a tiled pyramid" in answer.json()["slide"]["error"]
    for kind, name in (("nifti", "nifti.nii.gz"), ("tile", "tile.png"), ("tiff", "tiff.png")):
        written = server.studies / "labels" / "original" / name
        assert np.array_equal(read(written.read_bytes()), command(kind, "spleen"))


def test_beside_orthanc(
    root: Path, orthanc: Orthanc, command: Any, files: dict[str, Path], tmp_path: Path
) -> None:
    orthanc.store(files["dicom"])
    [series] = requests.get(f"{orthanc.dicomweb}/series", timeout=60).json()
    uid = series["0020000E"]["Value"][0]
    for server in started(root, orthanc.dicomweb, tmp_path / "label"):
        assert requests.get(f"{server.url}/datastore/", timeout=60).json()["total"] == 1
        for prompt in ("", "liver"):
            expected = command("dicom", prompt)
            assert np.array_equal(server.mask(uid, **({"prompt": prompt} if prompt else {})), expected)
        assert server.infer("../../x").status_code == 400
