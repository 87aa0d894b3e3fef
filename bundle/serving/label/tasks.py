"""MONAI Label's tasks for this bundle: inference with weights that are checked, training into a file of its own."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

# Before MONAI Label is: both look for torchvision once, when they are loaded.
import monai.bundle  # noqa: F401
import monai.transforms  # noqa: F401
import torch
import transformers

from bundle.atomic import write_atomically
from bundle.cases import CaseReference
from bundle.cases.structures import Structures
from bundle.inference import SlideSegmenter
from bundle.inference.prompts import PromptReader
from bundle.networks import load_weights
from bundle.results.slide_prediction import RegionPrediction
from bundle.serving.label.regions import MOST_MASK_PIXELS
from bundle.serving.label.requests import TRAINING_OPTIONS, RequestError, TrainingRequest, checked_training


@contextmanager
def _without_torchvision() -> Iterator[None]:
    """Let MONAI Label be loaded where torchvision is not installed.

    It imports two functions that draw tiles of images, for a dump that no task here makes. torchvision itself must
    be of the same build as torch, or neither it nor transformers can be loaded.
    """
    transformers.utils.is_torchvision_available()
    stand_ins = {name: ModuleType(name) for name in ("torchvision", "torchvision.utils")}
    if any(name in sys.modules for name in stand_ins):
        yield
        return
    for name in ("make_grid", "save_image"):
        setattr(stand_ins["torchvision.utils"], name, _not_drawn)
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name in stand_ins:
            del sys.modules[name]


def _not_drawn(*arguments: Any, **options: Any) -> None:
    raise RuntimeError("torchvision, which draws tiles of images, is not installed")


with _without_torchvision():
    from monailabel.interfaces.tasks.batch_infer import BatchInferTask
    from monailabel.interfaces.tasks.train import TrainTask
    from monailabel.tasks.infer.bundle import BundleInferTask
    from monailabel.utils.others.generic import device_map


def devices() -> dict[str, str]:
    """Name -> device of torch."""
    return dict(device_map())


def weight_files(root: Path) -> list[str]:
    """Names of the weights in the bundle, the shipped ones first."""
    return sorted((path.name for path in (root / "models").glob("*.pt")), key=lambda name: (len(name), name))


class SegmentationTask(BundleInferTask):
    """Inference as MONAI Label does it, with weights that fit wholly or are refused.

    Args:
        path: the bundle's root.
        conf: of the server.
    """

    def __init__(self, path: str, conf: dict[str, str]) -> None:
        super().__init__(path, conf, load_strict=True)
        # the metadata describe the network, which sees slices; what goes into a request is the whole volume
        self.dimension = 3
        self._reader = PromptReader()

    def inferer(self, data: Any = None) -> Any:
        """The bundle's, which reads a prompt once however many requests come with it."""
        return partial(super().inferer(data), reader=self._reader)

    def _get_network(self, device: str, data: Any) -> Any:
        """The network with the weights that are asked for; kept while their file stays as it is.

        Raises:
            WeightsError: see `bundle.networks.load_weights`.
        """
        chosen = (data or {}).get("model_filename")
        name = chosen if isinstance(chosen, str) else "model.pt"
        path = Path(self.bundle_path, "models", name)
        state = path.stat().st_mtime_ns if path.exists() else 0
        kept = self._networks.get((device, name))
        if kept is None or kept[1] != state:
            kept = (load_weights(copy.deepcopy(self.network), path, device), state)
            self._networks[(device, name)] = kept
        return kept[0]

    def slides(self) -> SlideSegmenter:
        """What the bundle segments slides with."""
        segmenter: SlideSegmenter = self.bundle_config.get_parsed_content("slides", instantiate=True)
        return segmenter

    def region(
        self, path: Path, request: Mapping[str, Any], box: tuple[int, int, int, int] | None
    ) -> RegionPrediction:
        """A region of a slide.

        Args:
            path: the slide.
            request: checked, see `bundle.serving.label.requests.checked_inference`.
            box: see `bundle.inference.SlideSegmenter.region`.

        Raises:
            CaseError: the slide or the region cannot be segmented.
            WeightsError: see `bundle.networks.load_weights`.
        """
        device = request["device"]
        reference = CaseReference(id=path.name.split(".")[0], image=path, prompt=request.get("prompt", ""))
        network = self._get_network(device, request)
        return self.slides().region(reference, network, box, device, MOST_MASK_PIXELS, self._reader)


class TolerantBatchTask(BatchInferTask):
    """Batch inference in which one image that cannot be segmented does not end the others'."""

    def __call__(self, request: dict[str, Any], datastore: Any, infer: Any) -> dict[str, Any]:
        def one(image_request: dict[str, Any], store: Any = None) -> dict[str, Any]:
            try:
                return infer(image_request, store)
            except Exception as error:  # the rest of the batch goes on
                return {"error": getattr(error, "detail", None) or str(error)}

        if not torch.cuda.is_available():
            request = {**request, "multi_gpu": False, "device": "cpu"}
        return super().__call__(request, datastore, one)


class TrainingTask(TrainTask):
    """Training on the final labels of the datastore, in a process of its own, into models/label-<time>.pt.

    MONAI Label's own task would write the fields of the request into the configuration, where they are evaluated,
    and the result over models/model.pt.

    Args:
        root: of the bundle.
        folder: for datalists, logs and checkpoints.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        super().__init__("Trains the bundle's network further, on the final labels of this datastore")
        self.root = root
        self.folder = folder

    def config(self) -> dict[str, Any]:
        return {"device": list(devices()), **TRAINING_OPTIONS, "model_filename": weight_files(self.root)}

    def __call__(self, request: dict[str, Any], datastore: Any) -> dict[str, Any]:
        """Train, and say where the weights are.

        Raises:
            RequestError: a field that cannot be used, no labels, or a training that failed.
        """
        asked = checked_training(request, devices(), weight_files(self.root))
        folder = self._new_folder()
        name = folder.name
        content, counts = self._datalist(datastore, asked)
        (folder / "datalist.json").write_text(json.dumps(content, indent=2), encoding="utf-8")
        log = folder / "log.txt"
        with log.open("wb") as stream:
            done = subprocess.run(
                self._command(asked, folder), cwd=self.root, stdout=stream, stderr=stream, check=False
            )
        trained = folder / "model.pt"
        if done.returncode or not trained.is_file():
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            last = next((line for line in reversed(lines) if line.strip()), "nothing was said")
            raise RequestError(f"The training failed: {last} ({log} has all of it).")
        with write_atomically(self.root / "models" / f"{name}.pt") as path:
            shutil.copyfile(trained, path)
        return {"model_filename": f"{name}.pt", "log": str(log), **counts}

    def _new_folder(self) -> Path:
        """One of the time's name; of two trainings in one second the later one gets a number behind."""
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"label-{datetime.now():%Y%m%d-%H%M%S}"
        folder, number = self.folder / name, 1
        while True:
            try:
                folder.mkdir()
                return folder
            except FileExistsError:
                number += 1
                folder = self.folder / f"{name}-{number}"

    def _datalist(self, datastore: Any, asked: TrainingRequest) -> tuple[dict[str, Any], dict[str, int]]:
        pairs = [{"image": one["image"], "label": one["label"]} for one in datastore.datalist() if one]
        if not pairs:
            raise RequestError("The datastore has no final labels; save some before training.")
        pairs.sort(key=lambda pair: pair["image"])
        held_out = round(len(pairs) * asked.validation_share)
        held_out = min(max(held_out, 1 if asked.validation_share else 0), len(pairs) - 1)
        training = pairs[: len(pairs) - held_out]
        # without an image to spare, the epoch is chosen by those that were learned from
        validation = pairs[len(pairs) - held_out :] or training
        structures = Structures(self.root / "configs" / "structures.yaml")
        labels = {str(one.value): one.name for one in structures}
        counts = {"training_images": len(training), "validation_images": held_out}
        return {"labels": labels, "training": training, "validation": validation}, counts

    def _command(self, asked: TrainingRequest, folder: Path) -> list[str]:
        """Checked numbers, and paths of the server's own."""
        options: dict[str, Any] = {
            "datalist": folder / "datalist.json",
            "output_dir": folder,
            "epochs": asked.epochs,
            "images_per_epoch": asked.images_per_epoch,
            "learning_rate": asked.learning_rate,
            "device": asked.device,
            "num_workers": 0,
            "progress": False,
        }
        if asked.weights is not None:
            options["initial_weights"] = Path("models", asked.weights)
        files = "['configs/inference.yaml','configs/train.yaml']"
        command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", files]
        return command + [text for key, value in options.items() for text in (f"--{key}", str(value))]
