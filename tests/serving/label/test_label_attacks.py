"""What must have no effect on MONAI Label's server, and is answered with one sentence."""

from __future__ import annotations

import contextlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from tests.support.label_server import HOSTILE, LARGEST_MB, MODEL, Server, read

pytestmark = pytest.mark.slow


def listing(folder: Path) -> set[str]:
    """What lies below a folder, but for trainings, and for uploads, which go after they were answered."""
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if not {"training", "temporary"} & set(path.parts)
    }


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
        (requests.get(f"{server.url}/proxy/dicom/%2e%2e/instances", timeout=60), 403),
        (requests.get(f"{server.url}/info/", headers=foreign, timeout=60), 403),
        (requests.get(f"{server.url}/info/", headers={"Host": "evil.example"}, timeout=60), 421),
        (requests.delete(f"{server.url}/session/..%2F..%2Fx", timeout=60), 400),
    ):
        assert answer.status_code == status and answer.json()["detail"]
    assert (server.root / "models" / "model.pt").read_bytes() == weights


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("datastore_v2", "datastore_v2.json"),  # the list of images itself
        ("new", "new.sh"),
        ("new", "new"),
        (None, ".."),
        (None, "../../new.png"),
        ("../new", "new.png"),
    ],
)
def test_uploads_that_are_no_images_are_not_stored(server: Server, image: str | None, name: str) -> None:
    before = listing(server.studies.parent)
    kept = (server.studies / "datastore_v2.json").read_bytes()
    answer = requests.put(
        f"{server.url}/datastore/",
        params={} if image is None else {"image": image},
        files={"file": (name, b'{"objects": {"x": {"image": {"ext": "/../../../etc/hostname"}}}}')},
        timeout=60,
    )
    assert answer.status_code == 400 and answer.json()["detail"].endswith(".")
    assert listing(server.studies.parent) == before
    assert (server.studies / "datastore_v2.json").read_bytes() == kept


def test_labels_that_are_no_masks_are_not_stored(server: Server) -> None:
    before = listing(server.studies.parent)
    for name, tag in (("mask.xml", "final"), ("mask.sh", "final"), ("mask.png", "../final")):
        answer = requests.put(
            f"{server.url}/datastore/label",
            params={"image": "png", "tag": tag},
            files={"label": (name, b"x")},
            timeout=60,
        )
        assert answer.status_code == 400 and answer.json()["detail"].endswith(".")
    assert listing(server.studies.parent) == before


def pieces(count: int) -> Iterator[bytes]:
    """A body with one file, whose length is not said before."""
    yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.bin"\r\n\r\n'
    for _ in range(count):
        yield bytes(1 << 20)


def test_requests_that_are_too_large_are_refused(server: Server) -> None:
    url = f"{server.url}/session/"
    whole = requests.put(url, files={"files": ("a.bin", bytes(LARGEST_MB + 1 << 20))}, timeout=60)
    assert whole.status_code == 413 and f"{LARGEST_MB} MB" in whole.json()["detail"]
    header = {"Content-Type": "multipart/form-data; boundary=x"}
    with contextlib.suppress(requests.ConnectionError):  # where the server hung up while this still sent
        chunked = requests.put(url, data=pieces(LARGEST_MB + 4), headers=header, timeout=60)
        assert chunked.status_code == 413
    assert server.infer("png").status_code == 200


def archive(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("bomb.zip", archive({"a.dcm": bytes(LARGEST_MB * 5 << 20)}), "unpacks to 40 MB"),
        ("broken.zip", b"PK no archive", "no ZIP"),
        ("other.tar", b"ustar", "no ZIP"),
    ],
    ids=["bomb", "broken", "tar"],
)
def test_archives_that_are_not_unpacked(server: Server, name: str, content: bytes, said: str) -> None:
    before = listing(server.home), set((server.home / "temporary").iterdir())
    answer = requests.put(
        f"{server.url}/session/", params={"uncompress": True}, files={"files": (name, content)}, timeout=60
    )
    assert answer.status_code == 400 and said in answer.json()["detail"]
    assert listing(server.home) == before[0]
    assert set((server.home / "temporary").iterdir()) <= before[1]


def test_an_archive_writes_nowhere_else(server: Server, files: dict[str, Path]) -> None:
    slices = {f"s/{path.name}": path.read_bytes() for path in files["dicom"].iterdir()}
    packed = archive({**slices, "../../escaped.dcm": b"x", "/escaped.dcm": b"x"})
    requests.put(
        f"{server.url}/session/",
        params={"uncompress": True},
        files={"files": ("series.zip", packed)},
        timeout=60,
    )
    found = {name for name in listing(server.home.parent) if "escaped" in name}
    assert not found and not Path("/escaped.dcm").exists()


def test_dicom_seg_is_refused_in_one_sentence(server: Server) -> None:
    answer = server.infer("nifti", output="dicom_seg")
    assert answer.status_code == 501 and "python -m bundle segment" in answer.json()["detail"]
