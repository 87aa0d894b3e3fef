"""Segmentation from Python: the network is loaded once and nothing is written unless it is asked for.

from bundle import Segmenter

segmenter = Segmenter()
result = segmenter("scan.nii.gz", prompt="the liver")
result.mask, result.probability, result.uncertainty, result.affine, result.report
result.save("out")
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bundle.cases import CaseError, CaseReference, Modality
from bundle.cases.held import held_image
from bundle.commands.command_line import sentence_for
from bundle.commands.options import INFERENCE, cases_of, inference_with, settings_by_name
from bundle.inference import CaseDataset
from bundle.inference.evaluator import CaseSegmenter
from bundle.results import Prediction, write_prediction
from bundle.results.report import build_report
from bundle.results.result_files import ResultWriter

#: Settings of runs over many cases, which write to a folder.
_OF_RUNS = frozenset(
    ("split", "part", "resume", "num_workers", "jobs", "engine", "progress", "ray_address")
    + ("actor_cpus", "actor_gpus", "actor_memory", "modality", "slide_mpp")
)


class SegmentationError(ValueError):
    """An image that cannot be segmented: one sentence that names it, the problem and the remedy."""


@dataclass(frozen=True)
class Segmentation:
    """One image, segmented.

    Attributes:
        prediction: all of it, as the pipeline has it.
        seconds: that it took.
    """

    prediction: Prediction
    seconds: float
    _writers: Sequence[ResultWriter] = field(default=(), repr=False)

    @property
    def id(self) -> str:
        """Name of its folder in `save`: of the file, or what the caller has named the image."""
        return self.prediction.case.reference.id

    @property
    def mask(self) -> NDArray[np.uint8]:
        """Labels on the image's own grid: (X, Y, Z) of volumes, (H, W) of pictures; see `labels`."""
        return self.prediction.mask

    @property
    def labels(self) -> dict[int, str]:
        """Value in the mask -> structure, of those that were asked for."""
        return self.prediction.labels

    @cached_property
    def probability(self) -> NDArray[np.float32]:
        """(K, *mask.shape) in [0, 1], one channel an entry of `labels`; of volumes worked out when it is asked for."""
        return np.asarray(self.prediction.probability)

    @property
    def uncertainty(self) -> NDArray[np.float32]:
        """In [0, 1], of the mask's shape: predictive entropy over log(number of classes), or as the setting says."""
        return self.prediction.uncertainty

    @property
    def affine(self) -> NDArray[np.float64] | None:
        """(4, 4) voxel index -> mm, RAS+; None for pictures."""
        return self.prediction.case.affine

    @cached_property
    def report(self) -> dict[str, Any]:
        """What report.json holds: found, volumes or areas, uncertainty, warnings, settings (docs/report.md)."""
        return build_report(self.prediction, self.seconds)

    def save(self, folder: Path | str) -> Path:
        """Write what `tpseg segment` writes for a case to `folder`/<id>/; an older one of that id is replaced.

        Returns:
            The case's own folder.

        Raises:
            CaseError: a folder of that name holds something else.
            OSError: it cannot be written.
        """
        write_prediction(self.prediction, Path(folder), self.seconds, self._writers)
        return Path(folder) / self.id


class Segmenter:
    """Segments images with the masks of `tpseg segment`, byte for byte.

    Threads may share one: their images wait for each other.

    Args:
        weights: None for those that are shipped.
        device: cpu, cuda, cuda:1, ...; None for the first GPU, or the CPU.
        export: folder of `tpseg export` in place of weights, on the CPU.
        config: configuration files over configs/inference.yaml.
        settings: as options of `tpseg segment`, with '_' for '-': steps=4, ct_window=[-160, 240], xray_sides="patient".

    Raises:
        TypeError: there is no such setting.
        ValueError: weights or settings cannot be used, in one sentence.
    """

    def __init__(
        self,
        weights: Path | str | None = None,
        device: str | None = None,
        export: Path | str | None = None,
        config: Sequence[Path | str] = (),
        **settings: Any,
    ) -> None:
        files = [Path(one) for one in config]
        chosen = settings_by_name(settings, [INFERENCE, *files], _OF_RUNS)
        network, graphs = (None if one is None else Path(one) for one in (weights, export))
        try:
            with _quiet():
                workflow = inference_with({**chosen, "output_dir": None}, files, network, graphs, device)
            content = workflow.parser.get_parsed_content
            self._segment = CaseSegmenter(
                content("network"), content("inferer"), content("postprocessing"), content("device")
            )
            self._preprocessing = content("preprocessing")
            self._writers = (content("dicom_results"), content("geojson_results"))
        except (
            Exception,
            SystemExit,
        ) as error:  # torch and MONAI raise every kind for settings they cannot use
            raise ValueError(sentence_for(error)) from error
        self._parser = workflow.parser
        self._lock = threading.Lock()

    def __call__(
        self,
        image: Any,
        prompt: str | None = None,
        *,
        modality: Modality | None = None,
        affine: ArrayLike | None = None,
        spacing: Sequence[float] | None = None,
        name: str = "image",
    ) -> Segmentation:
        """Segment one image.

        Args:
            image: path of an image, or of a folder with one DICOM series; or an image in memory, see
                `bundle.cases.held.held_image`.
            prompt: what to segment; None for what lies beside the image, or else the modality's default.
            modality: CT, X-ray or H&E; None to tell it from the image.
            affine, spacing: of volumes that are NumPy arrays or plain tensors.
            name: of an image in memory, for its results.

        Raises:
            SegmentationError: the image cannot be used, or the path leads to several.
        """
        references = self._references(image, prompt, modality, affine, spacing, name)
        if len(references) > 1:
            problem = f"holds {len(references)} images"
            raise SegmentationError(str(CaseError(image, problem, "call Segmenter.many, or name one")))
        return self._segmented(references[0], None)[0]

    def many(
        self,
        images: Iterable[Any] | Path | str,
        prompts: Sequence[str] | str | None = None,
        *,
        modality: Modality | None = None,
        on_error: Callable[[SegmentationError], object] | None = None,
    ) -> Iterator[Segmentation]:
        """Segment image after image, each when the last one has been taken.

        Args:
            images: paths, of which folders and lists may hold many, or images in memory; or one path.
            prompts: each image is read once and segmented for each of them, in this order; None as for one image.
            modality: of all of them; None to tell it from each.
            on_error: is told of images that cannot be segmented, and the rest goes on; None raises.

        Raises:
            SegmentationError: of the first image that cannot be segmented.
        """
        asked = (prompts,) if prompts is None or isinstance(prompts, str) else tuple(prompts)
        each = [images] if isinstance(images, str | Path) else images
        for number, image in enumerate(each, start=1):
            try:
                found = self._references(image, asked[0], modality, None, None, f"image_{number}", on_error)
            except SegmentationError as error:
                _tell(on_error, error)
                continue
            for reference in found:
                try:
                    results = self._segmented(reference, asked[1:] and asked)
                except SegmentationError as error:
                    _tell(on_error, error)
                    continue
                yield from results

    def _references(
        self,
        image: Any,
        prompt: str | None,
        modality: Modality | None,
        affine: ArrayLike | None,
        spacing: Sequence[float] | None,
        name: str,
        on_error: Callable[[SegmentationError], object] | None = None,
    ) -> list[CaseReference]:
        """The cases of a path, at least one; or that of an image in memory."""
        try:
            if not isinstance(image, str | Path):
                held = held_image(image, Path(name), affine, spacing)
                return [CaseReference(name, Path(name), prompt=prompt or "", modality=modality, held=held)]
            if affine is not None or spacing is not None:
                raise CaseError(image, "has a geometry of its own", "leave out affine and spacing")
            found = cases_of(self._parser, source=Path(image), prompt=prompt, modality=modality)
        except CaseError as error:
            raise SegmentationError(str(error)) from error
        for failure in found.failures:
            _tell(on_error, SegmentationError(failure.error))
        return found.references

    def _segmented(
        self, reference: CaseReference, prompts: Sequence[str | None] | None
    ) -> list[Segmentation]:
        """Results of a case for its own prompt, or for each of several."""
        segment = self._segment
        if prompts:
            by_number: Mapping[str, Mapping[str, str]] = {
                str(number): {reference.id: prompt or ""} for number, prompt in enumerate(prompts)
            }
            segment = replace(segment, prompts=by_number)
        with self._lock:
            output = segment(CaseDataset([reference], self._preprocessing)[0])
        if "error" in output:
            raise SegmentationError(output["error"])
        predictions = output["predictions"].values() if prompts else [output["prediction"]]
        return [Segmentation(one, output["seconds"], self._writers) for one in predictions]


@contextmanager
def _quiet() -> Iterator[None]:
    """MONAI warns on standard output that it leaves logging as it is."""
    logger = logging.getLogger("monai.bundle.workflows")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _tell(on_error: Callable[[SegmentationError], object] | None, error: SegmentationError) -> None:
    if on_error is None:
        raise error
    on_error(error)
