"""What stands before MONAI Label's own endpoints: requests that it would carry out, and should not, end here."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from bundle.serving.label_requests import RequestError, checked_id, checked_session, checked_tag

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
_SLIDES = "This server segments images, not whole slides; send a region as a picture"
#: (methods, path, why not), by the beginning of the path
_CLOSED = (
    ({"PUT", "DELETE"}, "/model/", "The weights of this server are not changed over the network"),
    ({"POST"}, "/reload", "This server is not reloaded over the network; start it again"),
    ({"POST"}, "/infer/wsi", _SLIDES),
    ({"POST"}, "/infer/wsi_v2", _SLIDES),
)


class Guard:
    """ASGI middleware around MONAI Label's application.

    Refuses other names of the server than its own, pages of other origins, which MONAI Label lets in, ids and tags
    that could lead out of the folder of the images, and what replaces weights.

    Args:
        application: of MONAI Label.
        hosts: names by which the server is called, without port; behind a proxy that keeps the name, that too.
    """

    def __init__(self, application: Application, hosts: Collection[str] = LOOPBACK) -> None:
        self.application = application
        self.hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        refused = self._refused(scope) if scope["type"] == "http" else None
        if refused is not None:
            await _answer(send, *refused)
            return
        await self.application(scope, receive, send)

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
        for methods, path, why in _CLOSED:
            if scope["method"] in methods and f"{scope['path'].rstrip('/')}/".startswith(
                f"{path.rstrip('/')}/"
            ):
                return 403, f"{why}."
        try:
            for key, value in parse_qsl(scope["query_string"].decode("latin-1")):
                if key in _CHECKS:
                    _CHECKS[key](value)
            if scope["path"].startswith("/session/") and scope["path"] != "/session/":
                checked_session(scope["path"].removeprefix("/session/"))
        except RequestError as error:
            return 400, str(error)
        return None


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
