"""The command ``python -m bundle pacs``; it can be asked for its options without the packages that it needs."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bundle.commands.options import INFERENCE, add_network_options, add_settings
from bundle.commands.parser import path_of

#: Packages of the extra 'pacs', by the names that they are imported by.
_PACKAGES = {"dicomweb_client": "dicomweb-client", "pynetdicom": "pynetdicom"}
#: Settings that a node decides itself: it takes series one by one, and sends DICOM objects.
_OF_THE_NODE = frozenset(
    (
        "split",
        "text_key",
        "text_beside",
        "modality",
        "series_modality",
        "resume",
        "part",
        "identifiers",
        "replacement_seed",
        "jobs",
        "engine",
        "ray_address",
        "actor_cpus",
        "actor_gpus",
        "actor_memory",
    )
    + ("num_workers", "progress", "dicom_seg", "geojson", "slide_mpp")
)
#: DICOM modalities whose images are segmented.
_MODALITIES = ("CT", "CR", "DX")


def add_commands(commands: Any, configs: Sequence[Path]) -> None:
    """Add 'pacs dicomweb' and 'pacs listen' to the sub-commands of the main parser."""
    pacs = commands.add_parser(
        "pacs", help="segment what arrives at a PACS, and store SEG and SR (docs/pacs.md)"
    )
    kinds = pacs.add_subparsers(dest="pacs", required=True)
    dicomweb = kinds.add_parser("dicomweb", help="watch a DICOMweb server")
    dicomweb.add_argument("--url", required=True, help="of the DICOMweb service; credentials: docs/pacs.md")
    dicomweb.add_argument(
        "--ca", type=path_of, metavar="FILE", help="certificates to check the server's by, PEM"
    )
    dicomweb.add_argument(
        "--query",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="studies that are taken, as QIDO-RS has it: StudyDescription=*ABDOMEN*",
    )
    dicomweb.add_argument(
        "--days", type=int, metavar="N", help="take studies dated today or up to N days ago; default: all"
    )
    dicomweb.add_argument(
        "--once", action="store_true", help="end when nothing that is there is left to be done"
    )
    listen = kinds.add_parser("listen", help="receive by C-STORE")
    listen.add_argument("--port", type=int, default=11112, help="default: %(default)s")
    listen.add_argument("--bind", default="127.0.0.1", metavar="ADDRESS", help="default: %(default)s")
    listen.add_argument(
        "--ae-title", default="BUNDLE", metavar="AET", help="of this node; default: %(default)s"
    )
    listen.add_argument("--allow", required=True, metavar="AET,...", help="AE titles that may send")
    listen.add_argument(
        "--forward-to",
        metavar="HOST:PORT:AET",
        help="where results go by C-STORE; default: they stay in the state folder",
    )
    listen.add_argument("--forward-tls", action="store_true", help="send results by TLS")
    listen.add_argument(
        "--tls-cert", type=path_of, metavar="FILE", help="certificate of this node, PEM: receive by TLS"
    )
    listen.add_argument(
        "--tls-key", type=path_of, metavar="FILE", help="its key; default: in the file of --tls-cert"
    )
    listen.add_argument(
        "--tls-ca", type=path_of, metavar="FILE", help="certificates that those of others must be signed by"
    )
    listen.add_argument(
        "--max-gb", type=float, default=20.0, metavar="GB", help="of all that waits; default: %(default)g"
    )
    listen.add_argument(
        "--max-instance-mb",
        type=float,
        default=1024.0,
        metavar="MB",
        help="of one object; default: %(default)g",
    )
    for command, poll in ((dicomweb, 10.0), (listen, 2.0)):
        _add_node_options(command, poll)
        add_network_options(command)
        add_settings(command, [INFERENCE, *configs], _OF_THE_NODE)
        command.set_defaults(start=start)


def _add_node_options(command: argparse.ArgumentParser, poll: float) -> None:
    command.add_argument(
        "--state", required=True, type=path_of, metavar="DIR", help="journal and results; one folder a node"
    )
    command.add_argument(
        "--poll", type=float, default=poll, metavar="SECONDS", help="between two looks; default: %(default)g"
    )
    command.add_argument(
        "--settle",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="without an addition until a study counts as arrived; default: %(default)g",
    )
    command.add_argument(
        "--attempts",
        type=int,
        default=8,
        metavar="N",
        help="where another system fails; default: %(default)s",
    )
    command.add_argument(
        "--modality",
        dest="dicom_modalities",
        action="append",
        choices=_MODALITIES,
        help="of series; repeatable; default: all of these",
    )
    prompt = command.add_mutually_exclusive_group()
    prompt.add_argument("--prompt", metavar="TEXT", help="what to segment, one for all series")
    prompt.add_argument(
        "--prompt-from-report",
        action="store_true",
        help="the text of the study's structured report, where it has one in prose",
    )
    command.add_argument(
        "--keep-results", action="store_true", help="in the state folder, when they are stored"
    )


def start(arguments: argparse.Namespace) -> int:
    """Run a node; returns the exit code."""
    missing = [package for module, package in _PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        named = " and ".join(missing)
        print(
            f"error: a PACS node needs {named}; run: python -m pip install {' '.join(missing)}",
            file=sys.stderr,
        )
        return 2
    from bundle.commands.pacs_node import run

    arguments.dicom_modalities = arguments.dicom_modalities or list(_MODALITIES)
    return run(arguments)
