"""MONAI's evaluator over cases of any shape, one failing without the others."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedEvaluator
from monai.inferers import Inferer
from monai.transforms import Compose
from monai.utils import CommonKeys as Keys
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from bundle.cases import Case, CaseError, CaseReference, read_label
from bundle.cases.errors import root_cause
from bundle.cases.slides import is_slide
from bundle.cases.structures import Structures
from bundle.inference.find import case_fingerprint
from bundle.inference.postprocess import joined
from bundle.inference.prompts import PromptReader
from bundle.inference.ray_actors import Actors, RayActors
from bundle.inference.slides import SlideSegmenter
from bundle.inference.workers import Workers
from bundle.transforms import reference_item
from bundle.worker_items import packed, unpacked

logger = logging.getLogger(__name__)
ENGINES = ("local", "ray")


@dataclass(frozen=True)
class LoadedCase:
    """An item of `CaseDataset`: a preprocessed case, or why there is none.

    Attributes:
        slide: whether it is a whole-slide image, which is read while it is segmented and has no item.
    """

    reference: CaseReference
    item: dict[str, Any] | None
    error: str | None
    seconds: float
    fingerprint: str
    slide: bool = False


class CaseDataset(Dataset):
    """Cases, preprocessed when they are asked for; one that cannot be used becomes an error, not an exception."""

    def __init__(self, references: Sequence[CaseReference], preprocessing: Compose) -> None:
        self.references = list(references)
        self.preprocessing = preprocessing

    def __len__(self) -> int:
        return len(self.references)

    def __getitem__(self, index: int) -> LoadedCase:
        reference = self.references[index]
        started = time.perf_counter()
        state = case_fingerprint(reference)  # before it is read, so that a change after that shows
        item, error, slide = None, None, False
        try:
            series = reference.series
            slide = is_slide(reference.image) if series is None else series.is_slide
            item = None if slide else self.preprocessing(reference_item(reference))
        except Exception as problem:  # the rest of the batch goes on
            error = reason(problem, reference)
        return LoadedCase(reference, item, error, time.perf_counter() - started, state, slide)


def reason(error: BaseException, reference: CaseReference) -> str:
    """One sentence for what went wrong with a case."""
    return reference.deidentify(_sentence(root_cause(error), reference))


def _sentence(error: BaseException, reference: CaseReference) -> str:
    if isinstance(error, CaseError):
        return str(error)
    if isinstance(error, MemoryError) or "not enough memory" in str(error) or "out of memory" in str(error):
        return f"{reference.image}: does not fit the memory; crop it, or lower batch_size or tile_size."
    logger.debug("%s failed", reference.id, exc_info=error)
    first_line = (str(error).splitlines() or [""])[0]
    return f"{reference.image}: {type(error).__name__}: {first_line}; run with debug to see where."


@dataclass(frozen=True)
class CaseSegmenter:
    """One case through network and postprocessing; one that cannot be used becomes an error, not an exception.

    Attributes: see `CaseEvaluator`.
    """

    network: nn.Module
    inferer: Inferer
    postprocessing: Callable[[dict[str, Any]], dict[str, Any]]
    device: torch.device
    prompts: Mapping[str, Mapping[str, str | Mapping[str, str]]] | None = None
    structures: Structures | None = None
    slides: SlideSegmenter | None = None
    reader: PromptReader = field(default_factory=PromptReader)

    def __call__(self, loaded: LoadedCase) -> dict[str, Any]:
        """The output of an iteration of `CaseEvaluator`."""
        started = time.perf_counter()
        output: dict[str, Any] = {"reference": loaded.reference, "fingerprint": loaded.fingerprint}
        if loaded.item is None and not loaded.slide:
            return {**output, "error": loaded.error, "seconds": loaded.seconds}
        try:
            if loaded.item is None:
                output |= self._segment_slide(loaded.reference)
            else:
                output |= self._segment(loaded.item)
        except Exception as problem:  # the rest of the batch goes on
            output["error"] = reason(problem, loaded.reference)
        output["seconds"] = loaded.seconds + time.perf_counter() - started
        return output

    def _segment_slide(self, reference: CaseReference) -> dict[str, Any]:
        if self.slides is None or self.prompts is not None:
            problem = "is a whole-slide image, which this command does not take"
            raise CaseError(reference.image, problem, "segment it, or cut it into pictures")
        self.network.eval()
        return {"slide": self.slides(reference, self.network, self.device, self.reader)}

    def _segment(self, item: Mapping[str, Any]) -> dict[str, Any]:
        case: Case = item["case"]
        image: Tensor = item[Keys.IMAGE][None].to(self.device)
        self.network.eval()
        if self.structures is not None and case.reference.label is not None:
            item = {
                **item,
                "ground_truth": read_label(case.reference, case),
            }  # whose faults are found before the work
        if self.prompts is None:
            return self._prompted(item, image, case.reference.prompt)
        results = {
            name: self._prompted(item, image, prompts[case.reference.id])
            for name, prompts in self.prompts.items()
        }
        predictions = {name: result["prediction"] for name, result in results.items()}
        return {**next(iter(results.values())), "predictions": predictions}

    def _prompted(
        self, item: Mapping[str, Any], image: Tensor, prompt: str | Mapping[str, str]
    ) -> dict[str, Any]:
        case: Case = item["case"]
        if not isinstance(prompt, str):
            if self.structures is None:
                raise ValueError("several prompts a case need the network's structures")
            each = {name: self._prompted(item, image, text) for name, text in prompt.items()}
            found = {self.structures.value(name): result["prediction"] for name, result in each.items()}
            names = {value: self.structures[value - 1].name for value in found}
            return {**next(iter(each.values())), "prediction": joined(found, names)}
        pred = self.inferer(image, self.network, prompt=prompt, reader=self.reader)
        # the result says which prompt it was given
        prompted = replace(case, reference=replace(case.reference, prompt=prompt))
        return self.postprocessing({**item, "case": prompted, Keys.PRED: pred[0]})


class CaseEvaluator(SupervisedEvaluator):
    """Runs each case through preprocessing, inferer and postprocessing.

    The output of an iteration has 'reference', 'fingerprint', 'seconds', and either the items of the postprocessed
    case ('prediction' among them), 'slide' of a whole-slide image, or 'error'. With `prompts` 'predictions' holds
    name -> prediction, and the rest is of the first of them. With several `jobs` the output is the case's 'entry',
    since its results are written by the process that made them.

    Args:
        dataset: see `CaseDataset`.
        network, inferer, postprocessing, device: as for MONAI's SupervisedEvaluator.
        prompts: name -> case id -> prompt: ways to prompt every case, which is read and preprocessed once;
            None for each case's own prompt alone. Instead of one prompt a case may have several, structure ->
            prompt: what each finds counts as that structure, see `joined`.
        structures: of the network, for several prompts a case and for cases with labels, which are checked then.
        val_handlers: what watches the cases, see `bundle.inference.run` and `bundle.scoring.handler`.
        num_workers: processes that read cases ahead.
        jobs: processes that each segment cases from the file to the results; 1 does so in this one.
        results: output of an iteration -> entry: what writes the results, for several `jobs` and for Ray.
        engine: what runs the jobs: 'local' on this machine, or 'ray'.
        actors: of Ray.
        slides: segments whole-slide images; None refuses them.
        reader: of prompts, kept from run to run while the network's weights stay as they are; None reads each text
            once a run.

    Raises:
        CaseError: labels without names, or with names of no structure.
        ValueError: `jobs` is no number of processes, or there is nothing to write their results.
    """

    def __init__(
        self,
        dataset: CaseDataset,
        network: nn.Module,
        inferer: Inferer,
        postprocessing: Callable[[dict[str, Any]], dict[str, Any]],
        device: torch.device | str = "cpu",
        prompts: Mapping[str, Mapping[str, str | Mapping[str, str]]] | None = None,
        structures: Structures | None = None,
        val_handlers: Sequence[Any] | None = None,
        num_workers: int = 0,
        jobs: int = 1,
        results: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None,
        engine: str = "local",
        actors: Actors | None = None,
        slides: SlideSegmenter | None = None,
        reader: PromptReader | None = None,
    ) -> None:
        if isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1:
            raise ValueError(f"jobs must be a whole number of at least 1, not {jobs!r}")
        if structures is not None:
            structures.check_labels(dataset.references)
        device = torch.device(device)
        self.case_segmenter = CaseSegmenter(
            network, inferer, postprocessing, device, prompts, structures, slides, reader or PromptReader()
        )
        self._forgets = reader is None
        loader: Any
        if engine not in ENGINES:
            raise ValueError(f"engine must be {' or '.join(ENGINES)}, not {engine!r}")
        if jobs == 1 and engine == "local":
            loader = DataLoader(dataset, batch_size=1, num_workers=num_workers, collate_fn=_only)
        elif results is None:
            name = "jobs: several processes" if engine == "local" else "engine: other processes"
            raise ValueError(f"{name} need something that writes their results")
        else:
            task = _WholeCase(dataset.preprocessing, self.case_segmenter, results)
            if engine == "ray":
                of_ray = actors or Actors()
                sent = task.on(torch.device("cpu"))
                gpus = of_ray.gpus_for(device)
                loader = RayActors(dataset.references, sent, task.lost, jobs, of_ray, gpus)
            else:
                loader = Workers(dataset.references, task, task.lost, jobs)
        super().__init__(
            device=device,
            val_data_loader=loader,
            network=network,
            inferer=inferer,
            val_handlers=val_handlers,
            decollate=False,
        )
        self.add_event_handler(Events.GET_BATCH_STARTED, self._forget)

    def _forget(self) -> None:
        """Two volumes in memory, the last one and the next, would be one too many."""
        self.state.batch = self.state.output = None

    def run(self, global_epoch: int = 1) -> None:
        """As MONAI's; a run without a usable case starts and ends too, so that handlers say what there was."""
        if self._forgets:
            self.case_segmenter.reader.forget()
        if len(self.data_loader) == 0:  # type: ignore[arg-type]
            self.fire_event(Events.STARTED)
            self.fire_event(Events.COMPLETED)
            return
        try:
            super().run(global_epoch)
        finally:
            if isinstance(self.data_loader, Workers | RayActors):
                self.data_loader.close()

    def _iteration(self, engine: Engine, batchdata: LoadedCase | dict[str, Any] | bytes) -> dict[str, Any]:  # type: ignore[override]
        given: LoadedCase | dict[str, Any] = unpacked(batchdata)
        return given if isinstance(given, dict) else self.case_segmenter(given)


@dataclass(frozen=True)
class _WholeCase:
    """A case from its file to its results, as another process does it."""

    preprocessing: Compose
    segmenter: CaseSegmenter
    results: Callable[[Mapping[str, Any]], dict[str, Any]]

    def __call__(self, reference: CaseReference) -> dict[str, Any]:
        loaded = CaseDataset([reference], self.preprocessing)[0]
        return {"entry": self.results(self.segmenter(loaded))}

    def on(self, device: torch.device) -> _WholeCase:
        """The same with the network there."""
        segmenter = self.segmenter
        if device == segmenter.device:
            return self
        network = copy.deepcopy(segmenter.network).to(device)
        return replace(self, segmenter=replace(segmenter, network=network, device=device))

    def lost(self, reference: CaseReference, ended: str) -> dict[str, Any]:
        """Of a case that took its process with it."""
        remedy = "if memory ran out, crop it or use fewer jobs"
        error = reference.deidentify(f"{reference.image}: was not finished ({ended}); {remedy}.")
        output = {
            "reference": reference,
            "fingerprint": case_fingerprint(reference),
            "error": error,
            "seconds": 0.0,
        }
        return {"entry": self.results(output)}


def _only(batch: Sequence[LoadedCase]) -> Any:
    return packed(batch[0])
