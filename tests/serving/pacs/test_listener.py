"""The C-STORE receiver, asked by pynetdicom's own sender: who may send, what fits, what is answered."""

from __future__ import annotations

import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage, Verification

from bundle.serving.pacs import listener
from bundle.serving.pacs.exchange import ArrivedSeries, ServerError, SettingError
from bundle.serving.pacs.forward import Forward, Peer, title_of
from bundle.serving.pacs.listener import Listener, tls_context
from bundle.serving.pacs.spool import Spool
from tests.support.pacs_node import phantom_series, wait_for


class Receiver:
    """A listener with its spool; made by `receive`."""

    def __init__(self, folder: Path, max_bytes: int = 10**6, max_instance: int = 10**5, context: Any = None):
        self.spool = Spool(folder / "spool", max_bytes)
        self.listener = Listener(self.spool, "BUNDLE", ["SCANNER", "PACS"], max_instance, context)
        self.port = self.listener.start("127.0.0.1", 0)


@pytest.fixture
def receive(tmp_path: Path) -> Iterator[Any]:
    started: list[Receiver] = []

    def make(**options: Any) -> Receiver:
        started.append(Receiver(tmp_path, **options))
        return started[-1]

    yield make
    for one in started:
        one.listener.stop()


def associate(port: int, calling: str = "SCANNER", called: str = "BUNDLE", **options: Any) -> Any:
    entity = AE(calling)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 10
    entity.add_requested_context(Verification)
    entity.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    return entity.associate("127.0.0.1", port, ae_title=called, **options)


def stored(port: int, *datasets: Any) -> list[int | None]:
    association = associate(port)
    assert association.is_established
    found = [association.send_c_store(dataset).get("Status") for dataset in datasets]
    association.release()
    return found


def test_what_is_sent_is_there_byte_for_byte(receive: Any) -> None:
    receiver = receive()
    ct = phantom_series()
    assert stored(receiver.port, *ct.slices) == [0] * 8
    series = ArrivedSeries(ct.study, ct.series, 8)
    assert receiver.spool.studies() == {ct.study: [series]}
    there = {path.stem: pydicom.dcmread(path) for path in receiver.spool.fetch(series).iterdir()}
    for dataset in ct.slices:
        assert there[dataset.SOPInstanceUID] == dataset


@pytest.mark.parametrize(
    ("calling", "called", "welcome"),
    [
        ("SCANNER", "BUNDLE", True),
        ("PACS", "BUNDLE", True),
        ("STRANGER", "BUNDLE", False),
        ("scanner", "BUNDLE", False),
        ("SCANNER", "OTHER", False),
    ],
)
def test_only_who_is_allowed_may_send(receive: Any, calling: str, called: str, welcome: bool) -> None:
    association = associate(receive().port, calling, called)
    assert association.is_established == welcome and association.is_rejected != welcome
    if welcome:
        assert association.send_c_echo().Status == 0
        association.release()


def test_what_is_too_large_is_refused_and_leaves_nothing(receive: Any) -> None:
    ct = phantom_series()
    large = ct.slices[1]
    large.PixelData = large.PixelData * 100
    receiver = receive()
    association = associate(receiver.port)
    assert association.send_c_store(ct.slices[0]).Status == 0
    assert "Status" not in association.send_c_store(large)
    wait_for(lambda: association.is_aborted, 10)
    assert receiver.spool.studies() == {ct.study: [ArrivedSeries(ct.study, ct.series, 1)]}
    assert not any(receiver.spool.partial.iterdir())


def test_a_full_spool_is_said(receive: Any) -> None:
    ct = phantom_series()
    receiver = receive(max_bytes=10_000)
    answers = stored(receiver.port, *ct.slices)
    assert answers[0] == 0 and set(answers) == {0, 0xA700}
    assert len(receiver.spool.studies()[ct.study]) == 1


def test_a_disk_that_fails_is_no_success(receive: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    receiver = receive()

    def fail(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("bundle.serving.pacs.spool.os.fsync", fail)
    assert stored(receiver.port, phantom_series().slices[0]) == [0xA700]
    assert receiver.spool.studies() == {} and not any(receiver.spool.partial.iterdir())


def test_what_has_no_study_is_not_understood(receive: Any) -> None:
    dataset = phantom_series().slices[0]
    del dataset.StudyInstanceUID
    assert stored(receive().port, dataset) == [0xC000]


def test_results_are_forwarded(receive: Any, tmp_path: Path) -> None:
    receiver = receive()
    paths = sorted(phantom_series().write(tmp_path / "results").iterdir())[:2]
    forward = Forward(Peer("127.0.0.1", receiver.port, "BUNDLE"), "PACS")
    forward.deliver(paths)
    forward.deliver(paths)  # a second time makes no second object
    [[series]] = receiver.spool.studies().values()
    assert series.instances == 2


def test_a_receiver_of_results_that_refuses(receive: Any, tmp_path: Path) -> None:
    receiver = receive(max_bytes=1)
    paths = sorted(phantom_series().write(tmp_path / "results").iterdir())[:1]
    peer = Peer("127.0.0.1", receiver.port, "BUNDLE")
    with pytest.raises(ServerError, match="did not store a result .status A700"):
        Forward(peer, "PACS").deliver(paths)
    for title, other in (("STRANGER", peer), ("PACS", Peer("127.0.0.1", 1, "BUNDLE"))):
        with pytest.raises(ServerError, match="cannot be reached, or does not know"):
            Forward(other, title).deliver(paths)


def test_with_tls_only_certificates_of_the_authority_are_taken(
    receive: Any, authority: Any, tmp_path: Path
) -> None:
    ours, stranger = authority("node"), authority("stranger", other=True)
    receiver = receive(context=tls_context(*ours, server=True))
    paths = sorted(phantom_series().write(tmp_path / "results").iterdir())[:1]
    peer = Peer("127.0.0.1", receiver.port, "BUNDLE")
    Forward(peer, "PACS", tls_context(*ours, server=False)).deliver(paths)
    assert len(receiver.spool.studies()) == 1
    untrusted = ssl.create_default_context(cafile=str(ours[2]))
    untrusted.load_cert_chain(stranger[0], stranger[1])
    for context in (None, untrusted):
        with pytest.raises(ServerError):
            Forward(peer, "PACS", context).deliver(paths)


def test_a_silent_connection_keeps_nobody_out(
    receive: Any, authority: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "HANDSHAKE_SECONDS", 0.2)
    ours = authority("node")
    receiver = receive(context=tls_context(*ours, server=True))
    paths = sorted(phantom_series().write(tmp_path / "results").iterdir())[:1]
    with socket.create_connection(("127.0.0.1", receiver.port)):
        peer = Peer("127.0.0.1", receiver.port, "BUNDLE")
        Forward(peer, "PACS", tls_context(*ours, server=False)).deliver(paths)
    assert len(receiver.spool.studies()) == 1


@pytest.fixture
def authority(tmp_path: Path, openssl: str) -> Any:
    """Make (certificate, key, authority's certificate) of 127.0.0.1, signed by one authority or another."""

    def make(name: str, other: bool = False) -> tuple[Path, Path, Path]:
        signer = "other" if other else "authority"
        files = [tmp_path / f"{one}.{kind}.pem" for one in (name, signer) for kind in ("certificate", "key")]
        certificate, key, ca, ca_key = files
        new = [openssl, "req", "-newkey", "rsa:2048", "-nodes"]
        commands = [
            [*new, "-x509", "-days", "2", "-subj", f"/CN={signer}", "-keyout", ca_key, "-out", ca],
            [*new, "-subj", f"/CN={name}", "-keyout", key, "-out", tmp_path / "request.pem"],
        ]
        (tmp_path / "names").write_text("subjectAltName=IP:127.0.0.1\n")
        sign = [openssl, "x509", "-req", "-days", "2", "-in", tmp_path / "request.pem", "-CA", ca]
        commands.append(
            [*sign, "-CAkey", ca_key, "-CAcreateserial", "-extfile", tmp_path / "names", "-out", certificate]
        )
        for command in commands:
            subprocess.run([str(part) for part in command], check=True, capture_output=True)
        return certificate, key, ca

    return make


def test_titles_and_addresses() -> None:
    assert Peer.of("pacs.example:104:PACS 1") == Peer("pacs.example", 104, "PACS 1")
    assert Peer.of("[::1]:11112:A") == Peer("::1", 11112, "A")
    for text in (
        "pacs:PACS",
        "pacs:0:PACS",
        "pacs:99999:PACS",
        "pacs:104:",
        ":104:PACS",
        "pacs:104:" + 17 * "A",
    ):
        with pytest.raises(SettingError):
            Peer.of(text)
    assert title_of(" BUNDLE ") == "BUNDLE"
    for text in ("", " ", "A\\B", "Ä", "A\nB"):
        with pytest.raises(SettingError, match="AE title"):
            title_of(text)
