"""MONAI's evaluator over cases of any shape, one failing without the others."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedEvaluator
from monai.inferers import Inferer
from monai.transforms import Compose
from monai.utils import CommonKeys as Keys
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from bundle.cases import Case, CaseError, CaseReference
from bundle.cases.structures import Structures
from bundle.inference.postprocess import joined
from bundle.networks.protocol import Segmenter
from bundle.transforms import reference_item

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedCase:
    """An item of `CaseDataset`: a preprocessed case, or why there is none."""

    reference: CaseReference
    item: dict[str, Any] | None
    error: str | None
    seconds: float


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
        item, error = None, None
        try:
            item = self.preprocessing(reference_item(reference))
        except Exception as problem:  # the rest of the batch goes on
            error = reason(problem, reference)
        return LoadedCase(reference, item, error, time.perf_counter() - started)


def reason(error: BaseException, reference: CaseReference) -> str:
    """One sentence for what went wrong with a case.

    MONAI wraps what a transform raises; the case's own error is looked for along the chain of causes.
    """
    cause = error
    while not isinstance(cause, CaseError) and (cause.__cause__ or cause.__context__):
        cause = cause.__cause__ or cause.__context__  # type: ignore[assignment]
    if isinstance(cause, CaseError):
        return str(cause)
    error = cause
    if isinstance(error, MemoryError) or "not enough memory" in str(error) or "out of memory" in str(error):
        return f"{reference.image}: does not fit the memory; crop it, or lower batch_size or tile_size."
    logger.debug("%s failed", reference.id, exc_info=error)
    first_line = (str(error).splitlines() or [""])[0]
    return f"{reference.image}: {type(error).__name__}: {first_line}; `python -m bundle segment --debug` shows where."


class CaseEvaluator(SupervisedEvaluator):
    """Runs each case through preprocessing, inferer and postprocessing.

    The output of an iteration has 'reference', 'seconds', and either the items of the postprocessed case
    ('prediction' among them) or 'error'. With `prompts` 'predictions' holds name -> prediction, and the rest
    is of the first of them.

    Args:
        dataset: see `CaseDataset`.
        network, inferer, postprocessing, device: as for MONAI's SupervisedEvaluator.
        prompts: name -> case id -> prompt: ways to prompt every case, which is read and preprocessed once;
            None for each case's own prompt alone. Instead of one prompt a case may have several, structure ->
            prompt: what each finds counts as that structure, see `joined`.
        structures: of the network, for several prompts a case.
        val_handlers: what watches the cases, see `bundle.inference.run` and `bundle.scoring.handler`.
        num_workers: processes that read cases ahead.
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
    ) -> None:
        self.case_postprocessing = postprocessing
        self.prompts = prompts
        self.structures = structures
        loader = DataLoader(dataset, batch_size=1, num_workers=num_workers, collate_fn=_only)
        super().__init__(
            device=torch.device(device),
            val_data_loader=loader,
            network=network,
            inferer=inferer,
            val_handlers=val_handlers,
            decollate=False,
        )

    def run(self, global_epoch: int = 1) -> None:
        """As MONAI's; a run without a usable case starts and ends too, so that handlers say what there was."""
        if len(self.data_loader) == 0:  # type: ignore[arg-type]
            self.fire_event(Events.STARTED)
            self.fire_event(Events.COMPLETED)
            return
        super().run(global_epoch)

    def _iteration(self, engine: Engine, batchdata: LoadedCase) -> dict[str, Any]:  # type: ignore[override]
        started = time.perf_counter()
        output: dict[str, Any] = {"reference": batchdata.reference}
        if batchdata.item is None:
            return {**output, "error": batchdata.error, "seconds": batchdata.seconds}
        try:
            output |= self._segment(batchdata.item)
        except Exception as problem:  # the rest of the batch goes on
            output["error"] = reason(problem, batchdata.reference)
        output["seconds"] = batchdata.seconds + time.perf_counter() - started
        return output

    def _segment(self, item: Mapping[str, Any]) -> dict[str, Any]:
        case: Case = item["case"]
        image: Tensor = item[Keys.IMAGE][None].to(self.state.device)
        self.network.eval()
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
            unknown = [name for name in prompt if not self.structures.knows(name)]
            if unknown:
                problem = f"labels {unknown[0]!r}, which the network does not know"
                raise CaseError(case.reference.label or case.reference.image, problem, "leave it out")
            each = {name: self._prompted(item, image, text) for name, text in prompt.items()}
            found = {self.structures.value(name): result["prediction"] for name, result in each.items()}
            names = {value: self.structures[value - 1].name for value in found}
            return {**next(iter(each.values())), "prediction": joined(found, names)}
        pred = self.inferer(image, self.network, prompt=prompt)
        # the result says what the network was told
        told = replace(case, reference=replace(case.reference, prompt=prompt))
        # by the network that segmented: postprocessing may know another one, whose weights are not averaged
        named = cast(Segmenter, self.network).named_channels(prompt)
        return self.case_postprocessing({**item, "case": told, "named": named, Keys.PRED: pred[0]})


def _only(batch: Sequence[LoadedCase]) -> LoadedCase:
    return batch[0]
