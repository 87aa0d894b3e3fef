"""What is kept of frozen encoders: bounded in memory, whole on disk, and never somewhere else."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from bundle.networks import TensorStore


def test_least_recently_used_go_first() -> None:
    store = TensorStore(max_bytes=100)
    for key in ("a", "b"):
        store.put(key, {"x": torch.zeros(10)})
    assert store.get("a") is not None
    store.put("c", {"x": torch.zeros(10)})
    assert store.get("b") is None
    assert store.get("a") is not None and store.get("c") is not None
    assert store.bytes == 80
    store.put("a", {"x": torch.zeros(5)})
    assert store.bytes == 60


def test_disk_outlives_memory_and_process(tmp_path: Path) -> None:
    tensors = {"x": torch.randn(3, 4), "y": torch.arange(5)}
    TensorStore(tmp_path, max_bytes=0).put("a1", tensors)
    found = TensorStore(tmp_path).get("a1")
    assert found is not None and all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    assert TensorStore(tmp_path).get("a2") is None


def test_a_damaged_file_counts_as_absent(tmp_path: Path) -> None:
    TensorStore(tmp_path).put("a1", {"x": torch.zeros(2)})
    (file,) = tmp_path.rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:10])
    assert TensorStore(tmp_path).get("a1") is None


@pytest.mark.parametrize("key", ["../a", "a/b", "", "a.b"])
def test_keys_that_could_leave_the_folder(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="does not name a file"):
        TensorStore(tmp_path).put(key, {"x": torch.zeros(1)})
    assert not list(tmp_path.iterdir())


def test_copies_share() -> None:
    store = TensorStore()
    copy.deepcopy(store).put("a", {"x": torch.ones(1)})
    assert store.get("a") is not None
