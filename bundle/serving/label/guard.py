"""What stands before MONAI Label's own endpoints: requests that it would carry out, and should not, end here."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from bundle.serving.label.requests import RequestError, checked_id, checked_session, checked_tag

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

LOOPBACK = frozenset(("127.0.0.1", "localhost", "::1"))
_CHECKS: dict[str, Callable[[Any], Any]] = {
    "image": checked_id,
    "id": checked_id,
    "label": lambda value: checked_id(value, "label"),
    "session_id": checked_session,
    "tag": checked_tag,
}
#: (methods, path, why not), by the beginning of the path
_CLOSED = (
    ({"PUT", "DELETE"}, "/model/", "The weights of this server are not changed over the network"),
    ({"POST"}, "/reload", "This server is not reloaded over the network; start it again"),
)
#: Where uploads become files of the datastore: without an id, the name that the file came with would be one.
_UPLOADS = ("/datastore", "/datastore/image")
_SEG = (
    "This server answers with NIfTI, NRRD or pictures; for DICOM SEG run python -m bundle segment or "
    "python -m bundle pacs"
)
#: What a DICOMweb server is asked for: no dot segments, no query, nothing encoded twice.
_DICOMWEB = re.compile(r"/proxy/dicom(/(?!\.{1,2}(/|$))[A-Za-z0-9._,=~@+-]*)*")
MEGABYTE = 1 << 20


def upload_limit() -> int:
    """Bytes that a request may have: LABEL_MAX_MB, or 2 GB.

    Raises:
        ValueError: it is no whole number above 0.
    """
    stated = os.environ.get("LABEL_MAX_MB") or "2048"
    if not stated.isdecimal() or not int(stated):
        raise ValueError(f"LABEL_MAX_MB is {stated!r}; give a whole number of megabytes")
    return int(stated) * MEGABYTE


class Guard:
    """ASGI middleware around MONAI Label's application.

    Refuses other names of the server than its own, pages of other origins, which MONAI Label lets in, ids and tags
    that could lead out of the folder of the images or of the DICOMweb server, what replaces weights, and requests that
    are too large, before they are on disk as a whole.

    Args:
        application: of MONAI Label.
        hosts: names by which the server is called, without port; behind a proxy that keeps the name, that too.
        most_bytes: of the body of a request; see `upload_limit`.
    """

    def __init__(
        self,
        application: Application,
        hosts: Collection[str] = LOOPBACK,
        most_bytes: int = 2048 * MEGABYTE,
    ) -> None:
        self.application = application
        self.hosts = frozenset(host.lower() for host in hosts)
        self.most_bytes = most_bytes

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        refused = self._refused(scope) if scope["type"] == "http" else None
        if refused is not None:
            await _answer(send, *refused)
            return
        if scope["type"] != "http":
            await self.application(scope, receive, send)
            return
        body = _Body(receive, send, self.most_bytes)
        try:
            await self.application(scope, body.receive, body.send)
        except Exception:
            if not body.refused:
                raise

    def _refused(self, scope: Message) -> tuple[int, str] | None:
        """Status and reason; None for requests that go on."""
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
        }
        if _host(f"//{headers.get('host', '')}") not in self.hosts:
            return 421, "The server is not known by this name; use its own address."
        origin = headers.get("origin")
        if origin is not None and _host(origin) not in self.hosts:
            return 403, "Pages of other origins may not use this server."
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self.most_bytes:
            return too_large(self.most_bytes)
        for methods, path, why in _CLOSED:
            if scope["method"] in methods and f"{scope['path'].rstrip('/')}/".startswith(
                f"{path.rstrip('/')}/"
            ):
                return 403, f"{why}."
        if scope["path"].startswith("/proxy/") and not _DICOMWEB.fullmatch(scope["path"]):
            return 403, "The DICOMweb server is asked for studies, series and instances alone."
        query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        if scope["path"].startswith("/infer/") and query.get("output") == "dicom_seg":
            return 501, f"{_SEG}."
        try:
            if scope["method"] == "PUT" and scope["path"].rstrip("/") in _UPLOADS:
                checked_id(query.get("image"))
            for key, value in parse_qsl(scope["query_string"].decode("latin-1")):
                if key in _CHECKS:
                    _CHECKS[key](value)
            if scope["path"].startswith("/session/") and scope["path"] != "/session/":
                checked_session(scope["path"].removeprefix("/session/"))
        except RequestError as error:
            return 400, str(error)
        return None


class _Body:
    """The body of a request on its way in, as far as it is not too large, and the answer on its way out."""

    def __init__(self, receive: Receive, send: Send, most_bytes: int) -> None:
        self.refused = False
        self._receive, self._send = receive, send
        self._left, self._most_bytes = most_bytes, most_bytes
        self._answering = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0 and not self.refused:
            self.refused = True
            if not self._answering:
                await _answer(self._send, *too_large(self._most_bytes))
        return {"type": "http.disconnect"} if self.refused else message

    async def send(self, message: Message) -> None:
        self._answering = True
        if not self.refused:
            await self._send(message)


def too_large(most_bytes: int) -> tuple[int, str]:
    return 413, f"The request is larger than {most_bytes // MEGABYTE:,} MB, which this server takes at most."


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


async def _answer(send: Send, status: int, sentence: str) -> None:
    """As FastAPI answers its own errors."""
    body = json.dumps({"detail": sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
