"""Results by C-STORE to another application entity."""

from __future__ import annotations

import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pynetdicom import AE

from bundle.serving.pacs.exchange import ServerError, SettingError

_SUCCESS = 0x0000
_WARNINGS = range(0xB000, 0xC000)  # PS3.4 B.2.3: stored, with something to note
_SECONDS = 60.0
# PS3.5 6.2: the default repertoire without backslash and control characters.
_TITLE = re.compile(r"[ -\[\]-~]{1,16}")


@dataclass(frozen=True)
class Peer:
    """Another application entity."""

    host: str
    port: int
    title: str

    @classmethod
    def of(cls, text: str) -> Peer:
        """From 'host:port:AET'; an IPv6 address stands in brackets.

        Raises:
            SettingError: it has another form.
        """
        found = re.fullmatch(r"(\[[^\]]+\]|[^:]+):(\d{1,5}):(.+)", text)
        if found is None or not 0 < int(found[2]) < 65536:
            raise SettingError(f"{text!r} is not of the form host:port:AET.")
        return cls(found[1].strip("[]"), int(found[2]), title_of(found[3]))


def title_of(text: str) -> str:
    """An application entity title, PS3.8 9.3.2: 1 to 16 characters, spaces around it without meaning.

    Raises:
        SettingError: it is none.
    """
    title = text.strip(" ")
    if not _TITLE.fullmatch(title):
        raise SettingError(f"{text!r} is no AE title: give 1 to 16 ASCII characters without a backslash.")
    return title


class Forward:
    """Destination of a node: stores objects in one association.

    A receiver that has an object already keeps one of it, since its SOPInstanceUID is the same.

    Args:
        title: of this node.
        context: for TLS; None for none.
    """

    def __init__(self, peer: Peer, title: str, context: ssl.SSLContext | None = None) -> None:
        self.peer = peer
        self.title = title
        self.context = context

    def deliver(self, files: Sequence[Path]) -> None:
        results = [pydicom.dcmread(path) for path in files]
        entity = AE(self.title)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = _SECONDS
        entity.connection_timeout = _SECONDS
        for result in results:
            entity.add_requested_context(result.SOPClassUID, result.file_meta.TransferSyntaxUID)
        association = entity.associate(
            self.peer.host,
            self.peer.port,
            ae_title=self.peer.title,
            tls_args=None if self.context is None else (self.context, self.peer.host),
        )
        if not association.is_established:
            raise ServerError("The receiver of results cannot be reached, or does not know this AE title.")
        try:
            for result in results:
                try:
                    status = association.send_c_store(result).get("Status")
                except (ValueError, RuntimeError) as error:
                    # no context was accepted for it, or the association is gone
                    raise ServerError(
                        "The receiver of results does not accept segmentations or reports."
                    ) from error
                if status is None:
                    raise ServerError("The receiver of results ended the association.")
                if status != _SUCCESS and status not in _WARNINGS:
                    raise ServerError(f"The receiver did not store a result (status {status:04X}).")
        finally:
            association.release()
