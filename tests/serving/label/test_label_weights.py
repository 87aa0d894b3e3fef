"""Weights of MONAI Label's server: whole or refused, and trained into a file of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import requests
import torch

from tests.support.label_server import MODEL, Server

pytestmark = pytest.mark.slow


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
