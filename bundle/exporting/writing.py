"""Writes a network as a folder of graphs, see `bundle.exporting.folder`."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bundle.atomic import replace_folder
from bundle.cases.errors import CaseError
from bundle.exporting.folder import (
    DESCRIPTION,
    LAYOUT_VERSION,
    SUFFIXES,
    TOKENIZER,
    ExportFormat,
    check_packages,
    read_export,
)
from bundle.exporting.graphs import Graph, check_exportable, schedule_shift, trace
from bundle.networks.segmenter import DiffusionSegmenter
from bundle.networks.weights import WeightsError, file_sha256

_QUANTISED = ["MatMul", "Gemm"]


def export_segmenter(
    network: torch.nn.Module,
    folder: Path,
    file_format: ExportFormat,
    settings: Mapping[str, Any],
    weights: Path,
    versions: Mapping[str, str],
    quantise: bool = False,
) -> None:
    """Write the folder whole or not at all; an earlier export in its place is replaced.

    Args:
        network: a `DiffusionSegmenter` with the weights in it.
        settings: see `bundle.settings.export_settings_of`.
        weights: the file that the network was filled from, for its name and sha256.
        versions: package -> version, for the record.
        quantise: 8-bit weights in matrix products, ONNX only; convolutions stay as they are.

    Raises:
        WeightsError: a network that cannot be exported, or packages of the extra 'export' are missing.
        CaseError: the folder holds something else.
    """
    segmenter = check_exportable(network)
    if quantise and file_format != "onnx":
        raise WeightsError("--quantise goes with --format onnx alone.")
    if file_format == "onnx":
        check_packages("onnx", "onnxscript", *(["onnxruntime"] if quantise else []))
    check_replaceable(folder)
    with replace_folder(folder) as temporary:
        graphs = trace(segmenter)
        for name, graph in graphs.items():
            path = temporary / f"{name}{SUFFIXES[file_format]}"
            if file_format == "onnx":
                _save_onnx(graph, path, quantise)
            else:
                torch.export.save(graph.program, path)
        if segmenter.text_prior is not None:
            segmenter.text_prior.prompt_tokens.tokenizer.save_pretrained(temporary / TOKENIZER)
        content = {
            "layout_version": LAYOUT_VERSION,
            "format": file_format,
            "quantised": quantise,
            "network": _about(segmenter),
            "graphs": {
                name: {
                    "sha256": file_sha256(temporary / f"{name}{SUFFIXES[file_format]}"),
                    "inputs": graph.inputs,
                    "outputs": graph.outputs,
                }
                for name, graph in graphs.items()
            },
            "settings": dict(settings),
            "weights": {"file": weights.name, "sha256": file_sha256(weights)},
            "versions": dict(versions),
        }
        text = json.dumps(content, indent=2, ensure_ascii=False)
        (temporary / DESCRIPTION).write_text(f"{text}\n", encoding="utf-8")
        read_export(temporary)


def check_replaceable(folder: Path) -> None:
    """Refuse to replace anything but an earlier export.

    Raises:
        CaseError: a file, or a folder with other things in it.
    """
    if folder.is_dir() and ((folder / DESCRIPTION).is_file() or not any(folder.iterdir())):
        return
    if folder.exists() or folder.is_symlink():
        raise CaseError(folder, "holds something that is no export", "give another --output")


def _about(network: DiffusionSegmenter) -> dict[str, Any]:
    return {
        "classes": network.classes,
        "stride": network.stride,
        "mask_stride": network.mask_stride,
        "schedule": {"name": "cosine", "shift": schedule_shift(network.schedule)},
        "names_structures": network.names_structures,
        "max_tokens": None if network.text_prior is None else network.text_prior.max_tokens,
    }


def _save_onnx(graph: Graph, path: Path, quantise: bool) -> None:
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)  # that torchvision, which nothing here uses, is not installed
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                graph.program,
                input_names=list(graph.inputs),
                output_names=list(graph.outputs),
                dynamo=True,
                verbose=False,
            )
    finally:
        logger.setLevel(level)
    if program is None:
        raise WeightsError("the exporter gave no graph.")
    if not quantise:
        program.save(path, external_data=False)
        return
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = program.model_proto
    del model.graph.value_info[:]  # shapes of results, which ONNX's own inference may call otherwise
    quantize_dynamic(
        model,
        path,
        op_types_to_quantize=_QUANTISED,
        per_channel=True,
        weight_type=QuantType.QInt8,
    )
