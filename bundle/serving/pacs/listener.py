"""A C-STORE receiver (PS3.4 B) that tells a sender of success when an object is on disk, and C-ECHO."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.sop_class import Verification

from bundle.serving.pacs.spool import NotUsable, Spool, SpoolFull

# PS3.7 annex C and PS3.4 B.2.3.
_SUCCESS, _NO_ROOM, _UNREADABLE = 0x0000, 0xA700, 0xC000
_ASSOCIATION_SECONDS, _IDLE_SECONDS = 30.0, 60.0
_MOST_ASSOCIATIONS = 10
HANDSHAKE_SECONDS = 5.0


class Listener:
    """Receives objects into a spool, in threads of its own, from `start` to `stop`.

    Args:
        title: AE title that senders must call.
        allowed: AE titles that may send.
        max_instance_bytes: of one object; larger ones end the association.
        context: for TLS; None for none.
    """

    def __init__(
        self,
        spool: Spool,
        title: str,
        allowed: Sequence[str],
        max_instance_bytes: int,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.spool = spool
        self.max_instance_bytes = max_instance_bytes
        self.context = context
        self._incoming: dict[Any, int] = {}  # association -> bytes of the message that is arriving
        self.entity = AE(title)
        self.entity.require_called_aet = True
        self.entity.require_calling_aet = list(allowed)
        self.entity.maximum_associations = _MOST_ASSOCIATIONS
        self.entity.acse_timeout = self.entity.dimse_timeout = _ASSOCIATION_SECONDS
        self.entity.network_timeout = _IDLE_SECONDS
        self.entity.add_supported_context(Verification)
        for storage in AllStoragePresentationContexts:
            self.entity.add_supported_context(storage.abstract_syntax, ALL_TRANSFER_SYNTAXES)

    def start(self, host: str, port: int) -> int:
        """Listen; returns the port, which is a free one for 0.

        Raises:
            OSError: the address cannot be listened at.
        """
        server: Any = self.entity.start_server(
            (host, port),
            block=False,
            ssl_context=self.context,
            evt_handlers=[
                (evt.EVT_C_STORE, self._store),
                (evt.EVT_C_ECHO, lambda _: _SUCCESS),
                (evt.EVT_PDU_RECV, self._count),
                (evt.EVT_DIMSE_RECV, self._forget),
                (evt.EVT_CONN_CLOSE, self._forget),
            ],
        )
        return int(server.server_address[1])

    def stop(self) -> None:
        """End all associations; what was answered with success stays in the spool."""
        self.entity.shutdown()

    def _count(self, event: Any) -> None:
        """End an association that sends too large a message, which would have to be held in memory."""
        if isinstance(event.pdu, P_DATA_TF):
            size = self._incoming[event.assoc] = self._incoming.get(event.assoc, 0) + event.pdu.pdu_length
            if size > self.max_instance_bytes:
                event.assoc.abort(block=False)

    def _forget(self, event: Any) -> None:
        """A message is complete, or will never be."""
        self._incoming.pop(event.assoc, None)

    def _store(self, event: Any) -> int:
        """Answer a C-STORE request."""
        path: Path = self.spool.temporary()
        try:
            path.write_bytes(event.encoded_dataset())
            self.spool.add(path, str(event.request.AffectedSOPInstanceUID))
        except (SpoolFull, OSError):
            return _NO_ROOM
        except NotUsable:
            return _UNREADABLE
        finally:
            path.unlink(missing_ok=True)
        return _SUCCESS


def tls_context(certificate: Path, key: Path | None, authority: Path | None, server: bool) -> ssl.SSLContext:
    """TLS 1.2 or newer, for this node as server or as client (PS3.15 B).

    Args:
        certificate, key: of this node, PEM; the key may be in the file of the certificate.
        authority: who must have signed the other side's certificate; a server with none takes every client.

    Raises:
        OSError: a file cannot be read or is no certificate or key.
    """
    context: ssl.SSLContext
    if server:
        context = _ServerContext(ssl.PROTOCOL_TLS_SERVER)
        if authority is not None:
            context.load_verify_locations(authority)
            context.verify_mode = ssl.CERT_REQUIRED
    else:
        context = ssl.create_default_context(cafile=None if authority is None else str(authority))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    return context


class _ServerContext(ssl.SSLContext):
    """Waits for a handshake for some seconds only, since nobody else is let in meanwhile."""

    def wrap_socket(self, sock: socket.socket, *arguments: Any, **options: Any) -> ssl.SSLSocket:
        sock.settimeout(HANDSHAKE_SECONDS)
        wrapped = super().wrap_socket(sock, *arguments, **options)
        wrapped.settimeout(None)
        return wrapped
