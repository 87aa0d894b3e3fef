"""What reaches MONAI Label: fields that are what they should be, under a name of the server, from its own pages."""

from __future__ import annotations

import asyncio
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from bundle.serving.label.guard import MEGABYTE, Guard, upload_limit
from bundle.serving.label.regions import RegionRequest, checked_region
from bundle.serving.label.requests import (
    MAX_PROMPT,
    RequestError,
    checked_archive,
    checked_id,
    checked_inference,
    checked_session,
    checked_tag,
    checked_training,
)

DEVICES = {"cpu": "cpu"}
WEIGHTS = ["model.pt", "label-20300101-000000.pt"]
SESSION = "0b7e3a52-cf5f-11f0-9d1c-0242ac110002"


def inference(**request: Any) -> dict[str, Any]:
    return checked_inference({"image": "case", **request}, DEVICES, WEIGHTS)


def test_a_prompt_is_passed_on_as_it_was_written() -> None:
    for prompt in ("$1/0", "@network_def", "%config", "spleen#1", "a, b", "", "x" * MAX_PROMPT):
        assert inference(prompt=prompt) == {"image": "case", "prompt": prompt, "device": "cpu"}


def test_what_viewers_send_back_unchanged_is_accepted() -> None:
    choices = {"device": ["cpu"], "model_filename": WEIGHTS, "result_extension": ".nrrd", "label_tag": ""}
    expected = {"image": "case", "device": "cpu", "model_filename": "model.pt", "result_extension": ".nrrd"}
    assert inference(**choices, result_dtype="uint16", label_info=[], steps=3) == expected


def test_a_gpu_that_is_not_there_is_the_cpu() -> None:
    assert inference(device="cuda")["device"] == "cpu"
    both = {"NVIDIA A": "cuda:0", "NVIDIA B": "cuda:1"}
    assert [
        checked_inference({"device": one}, both, [])["device"] for one in ("NVIDIA B", "cuda:1", None)
    ] == [
        "cuda:1",
        "cuda:1",
        "cuda:0",
    ]


@pytest.mark.parametrize(
    "request_",
    [
        {"prompt": ["liver"]},
        {"prompt": {"_target_": "os.system"}},
        {"prompt": "x" * (MAX_PROMPT + 1)},
        {"device": "$__import__('os').getpid()"},
        {"device": {"cpu": 1}},
        {"model_filename": "../model.pt"},
        {"model_filename": "other.pt"},
        {"model_filename": ["../model.pt"]},
        {"label_tag": "../final"},
        {"save_label": "$True"},
    ],
    ids=str,
)
def test_a_field_that_cannot_be_used_is_named(request_: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as refused:
        inference(**request_)
    assert len(str(refused.value)) < 200 and str(refused.value).endswith(".")


@pytest.mark.parametrize(
    "value", ["../x", "a/b", "a\\b", "C:x", ".hidden", "~", "a\0", "a\n", "x" * 201, "", None, 7]
)
def test_ids_that_are_no_file_names(value: Any) -> None:
    with pytest.raises(RequestError):
        checked_id(value)


def test_ids_tags_and_sessions_that_are_some() -> None:
    for value in ("case 7", "1.2.840.113619.2.55", "Müller-CT_03", "x" * 200):
        assert checked_id(value) == value
    assert checked_tag("final") == "final" and checked_session(SESSION) == SESSION
    for wrong in ("../x", SESSION.upper(), f"{SESSION}/", ""):
        with pytest.raises(RequestError):
            checked_session(wrong)


def test_numbers_of_a_training_are_numbers() -> None:
    asked = checked_training({"max_epochs": 3, "val_split": 0, "pretrained": False}, DEVICES, WEIGHTS)
    assert (asked.epochs, asked.validation_share, asked.weights, asked.device) == (3, 0.0, None, "cpu")
    assert checked_training({}, DEVICES, WEIGHTS).weights == "model.pt"
    for wrong in (
        {"max_epochs": "3"},
        {"max_epochs": True},
        {"max_epochs": 1e9},
        {"val_split": float("nan")},
        {"learning_rate": "$1/0"},
        {"pretrained": "@network"},
        {"model_filename": "/etc/passwd"},
    ):
        with pytest.raises(RequestError):
            checked_training(wrong, DEVICES, WEIGHTS)


def test_regions_are_whole_numbers_inside_a_slide() -> None:
    asked = checked_region({"location": [10, 20], "size": (30, 40), "min_poly_area": 80, "output": "asap"})
    assert asked == RegionRequest((10, 20, 40, 60), 80, "asap")
    assert checked_region({"level": 0, "location": [0, 0], "size": [0, 0]}) == RegionRequest(None, 0, "json")
    for wrong in (
        {"location": [-1, 0], "size": [5, 5]},
        {"size": [5, 0]},
        {"size": [5]},
        {"size": "$1/0"},
        {"size": [5.5, 5]},
        {"size": [1 << 40, 5]},
        {"level": 1},
        {"min_poly_area": "@x"},
        {"output": "../x"},
    ):
        with pytest.raises(RequestError):
            checked_region(wrong)


def test_archives_that_would_fill_the_disk_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "series.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.dcm", bytes(3_000_000))
    assert path.stat().st_size < 10_000
    checked_archive(path, 3_000_000)
    with pytest.raises(RequestError, match="unpacks to 3 MB"):
        checked_archive(path, 2_999_999)
    path.write_bytes(b"PK no archive")
    with pytest.raises(RequestError, match="no ZIP"):
        checked_archive(path, 3_000_000)


# --- in front of the endpoints -----------------------------------------------------------------------------


def answer(method: str, path: str, query: str = "", **headers: str) -> tuple[int, str]:
    """Status and detail; 200 where the request reached the application."""
    sent: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b'{"detail": ""}'})

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nothing reads the body here")

    given = {"host": "127.0.0.1:8000", **headers}
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
    }
    asyncio.run(Guard(application)(scope, receive, send))
    return sent[0]["status"], json.loads(sent[1]["body"])["detail"]


@pytest.mark.parametrize(
    ("status", "method", "path", "query", "headers"),
    [
        (200, "POST", "/infer/model", "image=case%207&output=image", {}),
        (200, "GET", "/model/model", "", {"origin": "http://127.0.0.1:8000"}),
        (200, "GET", "/info/", "", {"host": "localhost:8000"}),
        (200, "GET", "/info/", "", {"host": "[::1]:8000"}),
        (200, "GET", f"/session/{SESSION}", "", {}),
        (400, "POST", "/infer/model", "image=..%2F..%2Fx", {}),
        (400, "POST", "/infer/model", "session_id=..%2Fx", {}),
        (400, "PUT", "/datastore/label", "image=case&tag=..%2Fx", {}),
        (400, "PUT", "/datastore/", "image=%2Fetc%2Fx", {}),
        (400, "DELETE", "/session/../x", "", {}),
        (403, "PUT", "/model/model", "", {}),
        (403, "DELETE", "/model/model", "", {}),
        (403, "POST", "/reload", "", {}),
        (403, "GET", "/info/", "", {"origin": "https://example.org"}),
        (403, "GET", "/info/", "", {"origin": "null"}),
        (200, "PUT", "/datastore/", "image=case", {}),
        (400, "PUT", "/datastore/", "", {}),
        (400, "PUT", "/datastore/image", "image=", {}),
        (200, "GET", "/proxy/dicom/wado/studies/1.2/series/3.4/instances/5.6/frames/1,2", "", {}),
        (200, "GET", "/proxy/dicom/qido/studies", "limit=1", {}),
        (403, "GET", "/proxy/dicom/../instances", "", {}),
        (403, "GET", "/proxy/dicom/qido/../../system", "", {}),
        (403, "GET", "/proxy/dicom/%2e%2e/instances", "", {}),
        (403, "POST", "/proxy/dicom/wado/..", "", {}),
        (403, "GET", "/proxy/dicom/wado\\..\\x", "", {}),
        (501, "POST", "/infer/model", "image=case&output=dicom_seg", {}),
        (413, "PUT", "/session/", "", {"content-length": str(3000 << 20)}),
        (413, "PUT", "/session/", "", {"content-length": "-1"}),
        (421, "GET", "/info/", "", {"host": "example.org"}),
        (421, "GET", "/info/", "", {"host": "[::1"}),
    ],
)
def test_requests_that_go_on_and_that_do_not(
    status: int, method: str, path: str, query: str, headers: dict[str, str]
) -> None:
    given, detail = answer(method, path, query, **headers)
    assert given == status and (detail.endswith(".") or status == 200)


def test_a_body_of_unknown_length_ends_at_the_limit() -> None:
    sent: list[Any] = []
    taken: list[int] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        try:
            while (message := await receive())["type"] == "http.request":
                taken.append(len(message["body"]))
        finally:  # as frameworks answer what breaks off
            await send({"type": "http.response.start", "status": 400, "headers": []})
            await send({"type": "http.response.body", "body": b"{}"})

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": bytes(MEGABYTE), "more_body": True}

    scope = {"type": "http", "method": "PUT", "path": "/session/", "query_string": b""}
    guard = Guard(application, most_bytes=3 * MEGABYTE)
    asyncio.run(guard({**scope, "headers": [(b"host", b"localhost")]}, receive, send))
    assert taken == [MEGABYTE] * 3 and [one.get("status") for one in sent] == [413, None]
    assert "3 MB" in json.loads(sent[1]["body"])["detail"]


def test_the_limit_is_a_number_of_megabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABEL_MAX_MB", "5")
    assert upload_limit() == 5 * MEGABYTE
    for wrong in ("0", "5 GB", "-1"):
        monkeypatch.setenv("LABEL_MAX_MB", wrong)
        with pytest.raises(ValueError, match="LABEL_MAX_MB"):
            upload_limit()
