"""MONAI Label serves the bundle: started as `make label` does, asked in every way, and compared with the command."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import signal
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import itk
import nibabel
import numpy as np
import pytest
import requests
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image

from bundle.__main__ import main
from bundle.cases.phantoms import write_phantoms
from tests.conftest import CONFIGS, ENVIRONMENT, ROOT, SIZES, TINY
from tests.serving.conftest import Orthanc
from tests.serving.helpers import free_port, phantom_series, wait_for

pytestmark = pytest.mark.slow
MODEL = "text_prior_diffusion_segmentation"
INSTALLED = ROOT / ".venv-label" / ".installed"
PROMPTS = [
    "liver", "spleen", "aorta", "the left kidney", "nuclei", "pancreas and stomach", "lung", "gallbladder",
    "right kidney", "bilateral pulmonary infection", "liver and spleen", "segment everything", "stomach",
    "the aorta of this patient", "kidneys", "no finding",
]  # fmt: skip
#: To whoever evaluates them; the file would lie in the server's own folder.
HOSTILE = [
    "$__import__('pathlib').Path('touched').touch()",
    "@network_def",
    "%network_def",
    "spleen#1",
    "a, b",
]
#: Standard deviations of random weights with which masks have many labels and prompts name some of them.
SPREAD = {"naming.score.weight": 0.8, "denoiser.head.0.weight": 3.0}
#: The small network of the other tests, which reads prompts.
SETTINGS = {**TINY, "read_text": True}


@dataclass
class Server:
    """A running server; `root` is its bundle, `studies` its images."""

    root: Path
    studies: Path
    home: Path
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def infer(
        self, image: str = "", /, output: str = "image", session: str = "", **params: Any
    ) -> requests.Response:
        return requests.post(
            f"{self.url}/infer/{MODEL}",
            params={"image": image, "output": output, **({"session_id": session} if session else {})},
            data={"params": json.dumps(params)},
            timeout=300,
        )

    def mask(self, image: str = "", /, **options: Any) -> NDArray[np.uint8]:
        answer = self.infer(image, **options)
        assert answer.status_code == 200, answer.text
        return read(answer.content)


def read(content: bytes) -> NDArray[np.uint8]:
    """A mask as it was sent, in the axes of `bundle segment`'s own."""
    if content[:2] == b"\x1f\x8b":
        return np.asarray(nibabel.Nifti1Image.from_bytes(gzip.decompress(content)).dataobj)
    return np.asarray(Image.open(io.BytesIO(content)))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, workflow: Callable[..., Any]) -> Path:
    """The bundle with a small network, whose prompts name something: everything else is linked."""
    if not INSTALLED.exists():
        pytest.skip("MONAI Label's environment is not set up; run `make label-setup`")
    root = tmp_path_factory.mktemp("label") / "bundle root"
    (root / "models").mkdir(parents=True)
    shutil.copytree(CONFIGS, root / "configs")
    for name in ("bundle", "scripts", "requirements", "metadata.json", "models/text_prior", ".venv-label"):
        (root / name).symlink_to(ROOT / name)
    settings = yaml.safe_load((CONFIGS / "inference.yaml").read_text())
    (root / "configs" / "inference.yaml").write_text(
        yaml.safe_dump({**settings, **SETTINGS}, sort_keys=False)
    )
    torch.manual_seed(0)
    network = workflow("inference.yaml", read_text=True).parser.get_parsed_content("network_def")
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.ndim > 1 and not weight.any():
                torch.nn.init.normal_(weight, std=0.05)
            if name in SPREAD:
                torch.nn.init.normal_(weight, std=SPREAD[name])
    torch.save(network.state_dict(), root / "models" / "model.pt")
    (root / "tiny.yaml").write_text(yaml.safe_dump(SETTINGS))
    return root


def started(root: Path, studies: Path | str, home: Path) -> Iterator[Server]:
    server = Server(root, Path(studies), home, free_port())
    log = home.with_suffix(".log")
    # in a folder of its own, in which a touched file would show
    environment = {**ENVIRONMENT, "LABEL_HOME": str(home)}
    command = [str(root / "scripts" / "serve_monai_label.sh"), str(studies), str(server.port)]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, env=environment, stdout=stream, stderr=stream, start_new_session=True
        )
    try:
        wait_for(lambda: process.poll() is not None or "Uvicorn running" in log.read_text(), 300)
        assert process.poll() is None, log.read_text()[-3000:]
        yield server
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name of a kind -> image; a series is a folder."""
    folder = tmp_path_factory.mktemp("files")
    found: dict[str, Path] = {}
    for modality, kind in (("CT", "nifti"), ("X-ray", "png"), ("H&E", "tile")):
        write_phantoms(folder / kind, modality, [7], split="test", **SIZES[modality])  # type: ignore[arg-type]
        [found[kind]] = (folder / kind / "images").iterdir()
    found["tiff"] = folder / "tile.tiff"
    Image.open(found["tile"]).crop((0, 0, 96, 64)).save(found["tiff"], compression="tiff_lzw")
    # axes and slopes that a careless way through another library would lose
    volume = nibabel.load(found["nifti"])
    turned = np.asarray(volume.dataobj)[::-1].transpose(1, 0, 2)
    affine = volume.affine @ np.array(
        [[0, -1, 0, turned.shape[1] - 1], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]
    )
    found["turned"] = folder / "turned.nii"
    nibabel.save(nibabel.Nifti1Image(turned, affine), found["turned"])
    found["dicom"] = phantom_series(3).write(folder / "dicom")
    return found


@pytest.fixture(scope="module")
def server(root: Path, files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    studies = tmp_path_factory.mktemp("studies")
    for kind in ("nifti", "png", "tile", "tiff", "turned"):
        suffix = "".join(files[kind].suffixes)
        shutil.copy(files[kind], studies / f"{kind}{suffix}")
    yield from started(root, studies, tmp_path_factory.mktemp("home") / "label")


@pytest.fixture(scope="module")
def command(
    root: Path, files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., NDArray[np.uint8]]:
    """The mask that `python -m bundle segment` writes for (kind, prompt): one run over copies of the images."""
    folder = tmp_path_factory.mktemp("command")
    asked = {
        **{("nifti", prompt): "" for prompt in ("", *PROMPTS)},
        **{(kind, prompt): "" for kind in ("turned", "png", "tile", "tiff") for prompt in ("", *PROMPTS[:2])},
        **{("png", prompt): "" for prompt in HOSTILE},
    }
    for number, (kind, prompt) in enumerate(asked):
        asked[kind, prompt] = f"case_{number:02}"
        (folder / "images").mkdir(exist_ok=True)
        shutil.copy(files[kind], folder / "images" / f"case_{number:02}{''.join(files[kind].suffixes)}")
    (folder / "prompts.json").write_text(json.dumps({name: prompt for (_, prompt), name in asked.items()}))
    segment(root, folder / "images", folder / "out", "--prompt-file", folder / "prompts.json")
    for prompt in ("", "liver"):
        options = ("--prompt", prompt) if prompt else ()
        segment(root, files["dicom"], folder / f"dicom {prompt}", *options)
    masks = {key: mask_below(folder / "out" / name) for key, name in asked.items()}
    masks |= {("dicom", prompt): mask_below(folder / f"dicom {prompt}") for prompt in ("", "liver")}
    return lambda kind, prompt="": masks[kind, prompt]


def segment(root: Path, source: Path, output: Path, *options: object) -> None:
    torch.set_num_threads(1)
    network = ["--config", root / "tiny.yaml", "--weights", root / "models" / "model.pt", "--device", "cpu"]
    assert main([str(one) for one in ("segment", source, "--output", output, *network, *options)]) == 0


def mask_below(folder: Path) -> NDArray[np.uint8]:
    [written] = [*folder.rglob("mask.nii.gz"), *folder.rglob("mask.png")]
    return read(written.read_bytes())


def session(server: Server, folder: Path, packed: bool) -> str:
    paths = sorted(folder.iterdir())
    sent = [("files", (path.name, path.read_bytes())) for path in paths]
    if packed:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            for path in paths:
                archive.write(path, f"series/{path.name}")
        sent = [("files", ("series.zip", stream.getvalue()))]
    answer = requests.put(f"{server.url}/session/", params={"uncompress": packed}, files=sent, timeout=60)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["session_id"])


# --- masks -------------------------------------------------------------------------------------------------


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


def test_an_uploaded_file_and_one_in_a_session(server: Server, command: Any, files: dict[str, Path]) -> None:
    answer = requests.post(
        f"{server.url}/infer/{MODEL}",
        params={"output": "image"},
        data={"params": json.dumps({"prompt": "spleen"})},
        files={"file": ("some.nii.gz", files["nifti"].read_bytes())},
        timeout=300,
    )
    assert np.array_equal(read(answer.content), command("nifti", "spleen"))


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


STRUCTURES = yaml.safe_load((CONFIGS / "inference.yaml").read_text())["structures"]


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
    for kind, name in (("nifti", "nifti.nii.gz"), ("tile", "tile.png"), ("tiff", "tiff.png")):
        written = server.studies / "labels" / "original" / name
        assert np.array_equal(read(written.read_bytes()), command(kind, "spleen"))


# --- what must have no effect ------------------------------------------------------------------------------


def listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if "training" not in path.parts}


@pytest.mark.parametrize(
    "prompt",
    [*HOSTILE, "\0\x1b[2J", "spleen " * 140_000],
    ids=["expression", "reference", "macro", "number sign", "comma", "control characters", "a million"],
)
def test_hostile_prompts_are_text(
    server: Server, command: Any, files: dict[str, Path], tmp_path: Path, prompt: str
) -> None:
    answer = server.infer("png", prompt=prompt)
    assert answer.status_code == 200, answer.text
    if prompt in HOSTILE:
        assert np.array_equal(read(answer.content), command("png", prompt))
    assert not (server.root / "touched").exists()


def test_a_prompt_of_two_megabytes_is_refused(server: Server) -> None:
    answer = server.infer("png", prompt="a" * 2_000_000)
    assert answer.status_code == 400 and answer.json()["detail"]


@pytest.mark.parametrize(
    "image", ["../../x", "/etc/hostname", "a\0b", "x" * 300, "unknown", ".", "", "~root"]
)
def test_hostile_ids_are_refused(server: Server, image: str) -> None:
    before = listing(server.studies.parent)
    for answer in (
        server.infer(image),
        server.infer("png", image=image),
        requests.put(
            f"{server.url}/datastore/",
            params={"image": image or "."},
            files={"file": ("x.png", b"x")},
            timeout=60,
        )
        if image != "unknown"
        else server.infer(image),
    ):
        assert 400 <= answer.status_code <= 500, answer.text
        assert answer.json()["detail"] and "Traceback" not in answer.text
    assert listing(server.studies.parent) == before


@pytest.mark.parametrize(
    "params",
    [
        {"device": "EVIL"},
        {"model_filename": "../../../evil.pt"},
        {"result_extension": "/../../evil"},
        {"label_tag": "../../evil", "save_label": True},
        {"modality": "EVIL"},
        {"prompt": {"_target_": "os.system"}},
        {"save_label": "EVIL"},
    ],
    ids=lambda params: next(iter(params)),
)
def test_hostile_fields_are_refused(server: Server, tmp_path: Path, params: dict[str, Any]) -> None:
    target = tmp_path / "touched"
    evil = f"$__import__('pathlib').Path('{target}').touch()"
    params = {key: evil if value == "EVIL" else value for key, value in params.items()}
    answer = server.infer("png", **params)
    assert answer.status_code in (400, 422), answer.text
    assert "\n" not in answer.json()["detail"] and not target.exists()
    assert server.infer("png").status_code == 200, "the next request is none the worse for it"
    assert not target.exists()


def test_fields_that_nothing_asked_for_are_dropped(
    server: Server, command: Any, files: dict[str, Path]
) -> None:
    params = {
        "reference": {"id": "x"},
        "case": 1,
        "label": "/etc/hostname",
        "named": [1],
        "steps": "$1/0",
        "logging": "x",
    }
    assert np.array_equal(server.mask("png", **params), command("png"))


def test_what_is_closed(server: Server) -> None:
    weights = (server.root / "models" / "model.pt").read_bytes()
    url = f"{server.url}/model/{MODEL}"
    foreign = {"Origin": "https://example.org"}
    for answer, status in (
        (requests.put(url, files={"file": ("model.pt", b"x")}, timeout=60), 403),
        (requests.delete(url, timeout=60), 403),
        (requests.post(f"{server.url}/reload", timeout=60), 403),
        (requests.post(f"{server.url}/infer/wsi_v2/{MODEL}", timeout=60), 403),
        (requests.get(f"{server.url}/info/", headers=foreign, timeout=60), 403),
        (requests.get(f"{server.url}/info/", headers={"Host": "evil.example"}, timeout=60), 421),
        (requests.delete(f"{server.url}/session/..%2F..%2Fx", timeout=60), 400),
    ):
        assert answer.status_code == status and answer.json()["detail"]
    assert (server.root / "models" / "model.pt").read_bytes() == weights


# --- weights -----------------------------------------------------------------------------------------------


class Evil:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return Path.touch, (self.target,)


@pytest.mark.parametrize(
    ("kind", "said"), [("key", "missing"), ("shape", "another shape"), ("object", "objects")]
)
def test_weights_that_do_not_fit_are_refused(server: Server, tmp_path: Path, kind: str, said: str) -> None:
    path = server.root / "models" / "model.pt"
    whole = path.read_bytes()
    state = torch.load(path, weights_only=True)
    first = next(key for key, value in state.items() if value.ndim)
    if kind == "key":
        del state[first]
    elif kind == "shape":
        state[first] = state[first][None]
    else:
        state = {"model": Evil(tmp_path / "touched")}
    try:
        torch.save(state, path)
        answer = server.infer("png")
    finally:
        path.write_bytes(whole)
    assert (
        answer.status_code == 503 and said in answer.json()["detail"] and "\n" not in answer.json()["detail"]
    )
    assert not (tmp_path / "touched").exists()
    assert server.infer("png").status_code == 200


def test_training_makes_a_file_of_its_own(server: Server, files: dict[str, Path]) -> None:
    shipped = (server.root / "models" / "model.pt").read_bytes()
    train = f"{server.url}/train/{MODEL}"
    answer = requests.post(train, params={"run_sync": True}, json={"max_epochs": 1}, timeout=60)
    assert answer.status_code == 400 and "no final labels" in answer.json()["detail"]
    for kind in ("nifti", "tile"):
        mask = server.infer(kind).content
        name = "mask.nii.gz" if kind == "nifti" else "mask.png"
        saved = requests.put(
            f"{server.url}/datastore/label",
            params={"image": kind, "tag": "final"},
            files={"label": (name, mask)},
            timeout=60,
        )
        assert saved.status_code == 200, saved.text
    for evil in (
        {"max_epochs": "$1/0"},
        {"max_epochs": 0},
        {"val_split": "1"},
        {"model_filename": "../x.pt"},
    ):
        refused = requests.post(train, params={"run_sync": True}, json=evil, timeout=60)
        assert (
            refused.status_code == 400 and next(iter(evil)).split("_")[0] in refused.json()["detail"].lower()
        )
    options = {"max_epochs": 1, "images_per_epoch": 16, "val_split": 0.5}
    answer = requests.post(train, params={"run_sync": True}, json=options, timeout=580)
    assert answer.status_code == 200, answer.text
    name = answer.json()["model_filename"]
    trained = torch.load(server.root / "models" / name, weights_only=True)
    before = torch.load(server.root / "models" / "model.pt", weights_only=True)
    assert trained.keys() == before.keys() and any(
        not torch.equal(trained[key], before[key]) for key in before
    )
    assert (server.root / "models" / "model.pt").read_bytes() == shipped
    assert server.infer("tile", model_filename=name).status_code == 200


# --- beside a PACS -----------------------------------------------------------------------------------------


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
