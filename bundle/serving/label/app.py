"""The bundle as an application of MONAI Label. Its folder's main.py imports `LabelApp` and nothing else."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import monailabel
import numpy as np
from fastapi import HTTPException
from monailabel.interfaces.app import MONAILabelApp
from monailabel.utils.others.generic import strtobool
from monailabel.utils.others.pathology import create_asap_annotations_xml, create_dsa_annotations_json
from monailabel.utils.sessions import Sessions
from PIL import Image

from bundle.cases import CaseError
from bundle.cases.errors import root_cause
from bundle.cases.slides import is_slide
from bundle.inference.postprocess import picture_instances
from bundle.networks import WeightsError
from bundle.results.files.geojson import polygon_features
from bundle.serving.label.datastore import CheckedDatastore
from bundle.serving.label.guard import upload_limit
from bundle.serving.label.regions import Feature, RegionRequest, as_annotations, as_geojson, checked_region
from bundle.serving.label.requests import (
    RequestError,
    checked_archive,
    checked_id,
    checked_inference,
    checked_session,
)
from bundle.serving.label.tasks import (
    SegmentationTask,
    TolerantBatchTask,
    TrainingTask,
    devices,
    weight_files,
)

_UID = re.compile(r"[0-9.]{1,64}")
MODEL = "text_prior_diffusion_segmentation"
#: Bytes that an archive may unpack to, as a multiple of those that a request may have.
UNPACKED = 4


class LabelApp(MONAILabelApp):
    """Inference, batch inference and training with this bundle.

    Args:
        app_dir: holds model/text_prior_diffusion_segmentation, the bundle's root or a link to it.
        studies: a folder, or the address of a DICOMweb server.
        conf: 'skip_trainers true' offers no training.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        self.bundle_root = Path(app_dir, "model", MODEL)
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=conf,
            name="Text-prior diffusion segmentation",
            description="Segments CT, chest X-ray and H&E, with or without a prompt. For research use only.",
            version=monailabel.__version__,
        )

    def init_datastore(self) -> Any:
        if self.studies.startswith(("http://", "https://")):
            return super().init_datastore()
        return CheckedDatastore(self.studies)

    def init_infers(self) -> dict[str, Any]:
        return {MODEL: SegmentationTask(str(self.bundle_root), self.conf)}

    def init_trainers(self) -> dict[str, Any]:
        if strtobool(self.conf.get("skip_trainers", "false")):
            return {}
        return {MODEL: TrainingTask(self.bundle_root, Path(self.app_dir, "training"))}

    def init_batch_infer(self) -> Any:
        return TolerantBatchTask()

    def _download_dcmqi_tools(self) -> None:
        """Not downloaded, as MONAI Label does for a DICOMweb server: the pinned package dcmqi has them."""

    def _load_sessions(self, load: bool = False) -> Any:
        sessions = super()._load_sessions(load)
        return None if sessions is None else _CheckedSessions(sessions.store_path, sessions.expiry)

    def infer(self, request: dict[str, Any], datastore: Any = None) -> dict[str, Any]:
        """As MONAI Label's, with a checked request; what cannot be done is answered with one sentence."""
        image = request.get("image")
        with _one_sentence(image):
            checked = checked_inference(request, devices(), weight_files(self.bundle_root))
            if not self._received(image):
                self._check_known(image, datastore or self.datastore())
            return super().infer(checked, datastore)

    def infer_wsi(self, request: dict[str, Any], datastore: Any = None) -> dict[str, Any]:
        """Polygons of a region of a slide, or of a picture; see `bundle.serving.label.regions`.

        The file names no path and no patient. Coordinates are pixels of level 0 of the slide.
        """
        image = request.get("image")
        with _one_sentence(image):
            region = checked_region(request)
            checked = checked_inference(request, devices(), weight_files(self.bundle_root))
            if request.get("model") not in self._infers:
                raise RequestError(f"This server has no such model; ask for {MODEL}.")
            store = datastore or self.datastore()
            if not self._received(image):
                self._check_known(image, store)
                image = store.get_image_uri(image)
            features = list(self._features(Path(str(image)), checked, region, store))
            if region.output == "json":
                return {"file": None, "params": as_geojson(features)}
            write = {"asap": create_asap_annotations_xml, "dsa": create_dsa_annotations_json}[region.output]
            file, _ = write(as_annotations(MODEL, features, region), "WARNING")
            return {"file": file, "params": {}}

    def _features(
        self, path: Path, request: dict[str, Any], region: RegionRequest, datastore: Any
    ) -> Iterator[Feature]:
        task: SegmentationTask = self._infers[MODEL]
        if path.is_file() and is_slide(path):
            found = task.region(path, request, region.box)
            labels, scale, structures = found.labels, found.grid.scale, found.structures
            mask, offset, instances = found.mask, found.offset, found.instances
        else:
            picture = {**request, "image": str(path), "modality": "H&E", "result_extension": ".png"}
            file = Path(super().infer({**picture, "save_label": False}, datastore)["file"])
            try:
                mask = np.asarray(Image.open(file))
            finally:
                file.unlink()
            structures = task.slides().structures
            labels, scale = structures.of_modality("H&E"), (1.0, 1.0)
            left, top, right, bottom = region.box or (0, 0, mask.shape[1], mask.shape[0])
            mask, offset = mask[top:bottom, left:right], (float(left), float(top))
            if not mask.size:
                raise RequestError("The region lies outside the image; name one inside it.")
            settings = task.slides().inferer.modalities.histology
            instances = picture_instances(mask, labels, structures, settings)
        least = region.least_area
        for _, feature in polygon_features(mask, labels, scale, structures, offset, least, instances):
            yield feature

    def train(self, request: dict[str, Any]) -> dict[str, Any]:
        """As MONAI Label's, of this bundle alone."""
        if request.get("model") not in self._trainers:
            raise HTTPException(
                404, "This server trains no such model; it may have been started without training."
            )
        try:
            return super().train(request)
        except RequestError as error:
            raise HTTPException(400, str(error)) from error

    def _received(self, image: Any) -> bool:
        """Whether it is a file that the server itself received: uploaded for one request, or in a session."""
        if not isinstance(image, str) or not os.path.isabs(image) or "\0" in image:
            return False
        path = Path(os.path.realpath(image))
        temporary = Path(os.path.realpath(tempfile.gettempdir()))
        if path.parent == temporary and path.name.startswith(tempfile.gettempprefix()):
            return path.is_file()
        store = self._sessions and Path(os.path.realpath(self._sessions.store_path))
        return bool(store) and store in path.parents and path.exists()

    def _check_known(self, image: Any, datastore: Any) -> None:
        checked_id(image)
        # a DICOMweb server is asked for what it has not listed yet
        if not _UID.fullmatch(image) and image not in datastore.list_images():
            raise RequestError(
                f"There is no image {image!r} in the datastore; /datastore/?output=all lists them."
            )


class _CheckedSessions(Sessions):
    """Sessions under the ids that the server gave them, which name folders."""

    def get_session(self, session_id: str, update_ts: bool = True, fetch_cache: bool = True) -> Any:
        return super().get_session(checked_session(session_id), update_ts, fetch_cache)

    def remove_session(self, session_id: str) -> None:
        super().remove_session(checked_session(session_id))

    def add_session(
        self, data_file: str, expiry: int = 0, uncompress: bool = False, session_id: str | None = None
    ) -> Any:
        try:
            if uncompress and os.path.isfile(data_file):
                checked_archive(Path(data_file), UNPACKED * upload_limit())
        except RequestError:
            # what was received for it, which nothing else removes then
            shutil.rmtree(os.path.dirname(data_file), ignore_errors=True)
            raise
        return super().add_session(data_file, expiry, uncompress, session_id)


@contextmanager
def _one_sentence(image: Any) -> Iterator[None]:
    """What cannot be done is answered with a status and one sentence."""
    try:
        yield
    except RequestError as error:
        raise HTTPException(400, str(error)) from error
    except WeightsError as error:
        raise HTTPException(503, str(error)) from error
    except Exception as error:
        cause = root_cause(error)
        if not isinstance(cause, CaseError):
            raise
        raise HTTPException(422, f"{_name(image)}: {cause.problem}; {cause.remedy}.") from error


def _name(image: Any) -> str:
    """Of an image, without the server's folders."""
    return os.path.basename(str(image)) or "image"
