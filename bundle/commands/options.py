"""Options that every command which segments shares, and the configuration that they lead to."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monai.bundle import ConfigWorkflow

ROOT = Path(__file__).resolve().parents[2]
#: Options that are overrides of configs/inference.yaml under the same name.
_OVERRIDES = (
    "structures",
    "steps",
    "members",
    "seed",
    "batch_size",
    "modality",
    "split",
    "seg_type",
    "identifiers",
    "jobs",
    "slide_mpp",
    "geojson",
)


def add_image_options(command: argparse.ArgumentParser) -> None:
    """Options about how images are read and which DICOM series are taken."""
    command.add_argument(
        "--photometric",
        dest="xray_photometric",
        choices=("MONOCHROME1", "MONOCHROME2"),
        help="of X-ray pictures: MONOCHROME1 where bone is dark",
    )
    command.add_argument(
        "--xray-sides",
        choices=("image", "patient"),
        help="whose left and right prompts about X-rays mean; default: the image's",
    )
    command.add_argument(
        "--series-description",
        metavar="PATTERN",
        help="DICOM: only series so described; * and ? stand for any",
    )
    command.add_argument("--min-slices", type=int, metavar="N", help="DICOM: only volumes of as many slices")
    command.add_argument(
        "--orientation", choices=("axial", "coronal", "sagittal"), help="DICOM: only slices that lie so"
    )
    command.add_argument(
        "--resample-slices",
        action="store_true",
        help="DICOM: interpolate slices that are missing or unevenly spaced, instead of refusing the series",
    )


def add_network_options(command: argparse.ArgumentParser) -> None:
    """Options about the network, how it samples and what it writes."""
    command.add_argument("--steps", type=int, metavar="N", help="evaluations of the denoiser a member")
    command.add_argument("--members", type=int, metavar="N", help="chains from different noise")
    command.add_argument(
        "--seed", type=int, metavar="N", help="of the noise, together with what the image shows"
    )
    command.add_argument("--batch-size", type=int, metavar="N", help="slices or tiles a pass")
    command.add_argument("--device", help="cpu, cuda, cuda:1, ...; default: the first GPU, or the CPU")
    command.add_argument(
        "--seg-type",
        choices=("BINARY", "LABELMAP"),
        help="of the DICOM SEG; default: BINARY, which every viewer reads",
    )
    command.add_argument(
        "--structures",
        type=Path,
        metavar="FILE",
        help="what the weights segment; default: configs/structures.yaml, which says how to write one",
    )
    network = command.add_mutually_exclusive_group()
    network.add_argument("--weights", type=Path, metavar="FILE", help="default: models/model.pt")
    network.add_argument(
        "--export",
        type=Path,
        metavar="DIR",
        help="ONNX graphs of `python -m bundle export` in place of weights, on the CPU (docs/export.md)",
    )
    command.add_argument(
        "--config",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="configuration over configs/inference.yaml, e.g. configs/medconddiff.yaml; repeatable",
    )
    command.add_argument("--debug", action="store_true", help="tracebacks and MONAI's own messages")


def series_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """What `find_cases` is told of which DICOM series are taken."""
    return {
        "series_description": arguments.series_description,
        "min_slices": 1 if arguments.min_slices is None else arguments.min_slices,
        "orientation": arguments.orientation,
        "resample_slices": arguments.resample_slices,
    }


def inference_workflow(arguments: argparse.Namespace, **overrides: Any) -> ConfigWorkflow:
    """configs/inference.yaml with the options and overrides, initialised.

    What the user gave reaches the configuration as objects (paths, not strings), so that nothing in it is evaluated.

    Raises:
        Exception: torch and MONAI raise every kind for settings that they cannot use.
    """
    from monai.bundle import ConfigWorkflow

    from bundle.cases import CaseError
    from bundle.networks.weights import usable_device

    settings: dict[str, Any] = {"bundle_root": ROOT}
    files = [ROOT / "configs" / "inference.yaml", *arguments.config]
    if arguments.export is None:
        settings["weights"] = arguments.weights or ROOT / "models" / "model.pt"
    else:
        files.append(ROOT / "configs" / "exported.yaml")
        settings["export"] = arguments.export
    for name in (*_OVERRIDES, "xray_sides", "xray_photometric"):
        if getattr(arguments, name, None) is not None:
            settings[name.replace("xray_", "xray#")] = getattr(arguments, name)
    if arguments.export is not None:
        settings["overridden"] = [*settings, *overrides]
    if arguments.device is not None:
        settings["device"] = usable_device(arguments.device)
        if arguments.export is not None and settings["device"].type != "cpu":
            raise CaseError("--device", "exported graphs run on the CPU", "leave it out, or --export")
    workflow = ConfigWorkflow(
        config_file=[str(path) for path in files],
        meta_file=str(ROOT / "configs" / "metadata.json"),
        logging_file=False,
        workflow_type="inference",
        **settings,
        **overrides,
    )
    workflow.initialize()
    return workflow
