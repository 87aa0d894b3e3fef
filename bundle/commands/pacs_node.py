"""What ``python -m bundle pacs dicomweb`` and ``listen`` do with their options.

Exit codes: 0 nothing is left to be done (--once); 1 the same, and some series failed; 2 nothing could be started;
130 the node was asked to end.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import ipaddress
import json
import logging
import os
import re
import signal
import ssl
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import filelock

from bundle.commands.command_line import sentence_for
from bundle.commands.options import INFERENCE, inference_workflow
from bundle.exit_codes import INTERRUPTED, NOT_STARTED, SOME_FAILED
from bundle.inference import CaseList
from bundle.serving.pacs.dicomweb import DicomWebServer, credentials_from
from bundle.serving.pacs.exchange import Destination, ServerError, SettingError, Source
from bundle.serving.pacs.forward import Forward, Peer, title_of
from bundle.serving.pacs.journal import SeriesJournal
from bundle.serving.pacs.listener import Listener, tls_context
from bundle.serving.pacs.node import Node, Pace, say
from bundle.serving.pacs.outbox import Outbox
from bundle.serving.pacs.segmenter import SeriesSegmenter
from bundle.serving.pacs.spool import Spool
from bundle.settings import settings_of

_GIGA, _MEGA = 10**9, 10**6
# They report addresses with what is searched for, and values of headers.
TALKATIVE = ("dicomweb_client", "urllib3", "pynetdicom", "pydicom", "highdicom")


def run(arguments: argparse.Namespace) -> int:
    """Run a node until it is done or is asked to end; returns the exit code."""
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with contextlib.ExitStack() as stack:
            try:
                node = _prepare(arguments, stack)
            except (SettingError, ServerError) as error:
                return _not_started(str(error))
            except Exception as error:  # torch and MONAI raise every kind for settings they cannot use
                if arguments.debug:
                    logging.exception("nothing could be started")
                return _not_started(sentence_for(error))
            try:
                node.run(once=getattr(arguments, "once", False))
            except ServerError as error:
                return _not_started(str(error))
            except OSError as error:  # of the journal, without which nothing may go on
                say(
                    f"error: {arguments.state}: cannot be written ({error.strerror}); free space and start again."
                )
                return SOME_FAILED
        return SOME_FAILED if node.failures else 0
    except KeyboardInterrupt:
        say("Stopped; what was begun is done again by the next start with the same --state.")
        return INTERRUPTED


def _prepare(arguments: argparse.Namespace, stack: contextlib.ExitStack) -> Node:
    """The node that the options ask for; what must be let go of in the end is left to `stack`."""
    pace = _pace(arguments)
    state: Path = arguments.state
    stack.enter_context(_claimed(state))
    journal, outbox = SeriesJournal(state / "journal.jsonl"), Outbox(state / "results")
    source: Source
    destination: Destination | None
    listener: Listener | None = None
    if arguments.pacs == "dicomweb":
        source = destination = _dicomweb(arguments)
    else:
        source = spool = Spool(state / "spool", int(arguments.max_gb * _GIGA), arguments.prompt_from_report)
        listener, destination = _listener(arguments, spool), _forward(arguments)
    segment = series_segmenter(arguments, outbox.folder)
    node = Node(source, destination, segment, journal, outbox, pace, arguments.keep_results)
    if listener is not None:
        _listen(arguments, listener, stack)
    else:
        say("Watching the DICOMweb server.")
    return node


def series_segmenter(arguments: argparse.Namespace, output_dir: Path) -> SeriesSegmenter:
    """What segments each series as the options say."""
    workflow = inference_workflow(arguments, cases=CaseList([], []), output_dir=output_dir, progress=False)
    content = workflow.parser.get_parsed_content
    names = ("series_description", "min_slices", "orientation", "resample_slices")
    selection = {"prompt": arguments.prompt, **{name: content(name) for name in names}}
    settings = settings_of(workflow.parser)
    return SeriesSegmenter(
        content,
        arguments.dicom_modalities,
        selection,
        _request_digest(arguments.config, [settings, arguments.prompt, selection["resample_slices"]]),
        bool(arguments.prompt_from_report),
    )


def _request_digest(configs: Sequence[Path], deciding: Any) -> str:
    """SHA-256 of the configuration and of what decides on a result."""
    digest = hashlib.sha256(json.dumps(deciding, sort_keys=True).encode("utf-8", "replace"))
    for path in (INFERENCE, *configs):
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()


def _pace(arguments: argparse.Namespace) -> Pace:
    for name in ("poll", "settle"):
        if not 0 <= getattr(arguments, name) < float("inf"):
            raise SettingError(f"--{name}: give seconds, 0 or more.")
    if arguments.attempts < 1:
        raise SettingError("--attempts: give 1 or more.")
    return Pace(arguments.poll, arguments.settle, arguments.attempts)


@contextlib.contextmanager
def _claimed(state: Path) -> Iterator[None]:
    """Hold the state folder, which patient data pass through, for this process and this user alone."""
    try:
        os.makedirs(state, mode=0o700, exist_ok=True)
        lock = filelock.FileLock(state / "lock")
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise SettingError(
            f"{state}: another node works with this folder; give each its own --state."
        ) from None
    except OSError as error:
        raise SettingError(f"{state}: cannot be written ({error.strerror}); give another --state.") from error
    try:
        yield
    finally:
        lock.release()


def _dicomweb(arguments: argparse.Namespace) -> DicomWebServer:
    query = {}
    for text in arguments.query:
        key, equals, value = text.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z0-9]+", key):
            raise SettingError("--query: give KEY=VALUE, such as StudyDescription=*ABDOMEN*.")
        query[key] = value
    if arguments.days is not None and arguments.days < 0:
        raise SettingError("--days: give 0 or more.")
    return DicomWebServer(
        arguments.url,
        arguments.state / "fetched",
        arguments.dicom_modalities,
        query,
        arguments.days,
        _file(arguments.ca, "--ca"),
        credentials_from(os.environ),
        arguments.prompt_from_report,
    )


def _listener(arguments: argparse.Namespace, spool: Spool) -> Listener:
    allowed = [title_of(title) for title in arguments.allow.split(",")]
    if min(arguments.max_gb, arguments.max_instance_mb) <= 0:
        raise SettingError("--max-gb and --max-instance-mb: give more than 0.")
    context = None if arguments.tls_cert is None else _tls(arguments, server=True)
    if context is None and (arguments.tls_key is not None or arguments.forward_tls):
        raise SettingError("--tls-key and --forward-tls need a certificate; name it with --tls-cert.")
    size = int(arguments.max_instance_mb * _MEGA)
    return Listener(spool, title_of(arguments.ae_title), allowed, size, context)


def _listen(arguments: argparse.Namespace, listener: Listener, stack: contextlib.ExitStack) -> None:
    try:
        port = listener.start(arguments.bind, arguments.port)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or "no such port"
        raise SettingError(f"{arguments.bind}:{arguments.port}: cannot be listened at ({reason}).") from error
    stack.callback(listener.stop)
    say(f"Listening at {arguments.bind}:{port} as {arguments.ae_title}.")
    if listener.context is None and not _is_loopback(arguments.bind):
        say(
            "warning: images arrive unencrypted and AE titles are no proof of identity; see docs/pacs.md on TLS."
        )


def _forward(arguments: argparse.Namespace) -> Forward | None:
    if arguments.forward_to is None:
        return None
    context = _tls(arguments, server=False) if arguments.forward_tls else None
    return Forward(Peer.of(arguments.forward_to), title_of(arguments.ae_title), context)


def _tls(arguments: argparse.Namespace, server: bool) -> ssl.SSLContext:
    files = [
        _file(getattr(arguments, name), f"--{name.replace('_', '-')}")
        for name in ("tls_cert", "tls_key", "tls_ca")
    ]
    try:
        return tls_context(arguments.tls_cert, files[1], files[2], server)
    except OSError as error:
        raise SettingError("--tls-cert, --tls-key, --tls-ca: no certificates and key in PEM form.") from error


def _file(path: Path | None, option: str) -> Path | None:
    if path is not None and not path.is_file():
        raise SettingError(f"{option}: {path} is no file; check the path.")
    return path


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def _not_started(sentence: str) -> int:
    print(f"error: {sentence}", file=sys.stderr)
    return NOT_STARTED


def _interrupt(*_: Any) -> NoReturn:
    raise KeyboardInterrupt
