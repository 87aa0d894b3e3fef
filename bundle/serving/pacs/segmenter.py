"""One series through the network, as `python -m bundle segment` leads it; the network is loaded once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pydicom
from ignite.engine import Engine, Events
from pydicom.dataset import Dataset

from bundle.cases import CaseError
from bundle.cases.dicom.headers import MANUFACTURER, quiet, text
from bundle.cases.dicom.locate import AllExcludedError
from bundle.inference import CaseDataset, CaseEvaluator, find_cases
from bundle.inference.evaluator import reason
from bundle.inference.prompts import PromptReader
from bundle.results import DicomResults, Prediction, write_prediction
from bundle.results.result_files import DICOM_FILES, ReportAdditions, ResultWriter
from bundle.serving.pacs.outbox import Outcome

_NO_REPORT = "The study has no report in prose yet; the default of the modality was segmented."


class NothingToSegment(Exception):
    """Why a series is not segmented, which is no fault of it."""


class CannotBeSegmented(Exception):
    """What is wrong with a series, in one sentence."""


class SeriesSegmenter:
    """Segments folders of one series each.

    Args:
        content: id -> what the inference configuration has under it.
        modalities: DICOM modalities that are segmented.
        selection: arguments of `bundle.inference.find_cases`: the prompt, and which series are taken.
        request: digest of the settings that decide on a result.
        from_report: whether the study's report is to be the prompt.

    Raises:
        Exception: of every kind, for weights and settings that cannot be used.
    """

    def __init__(
        self,
        content: Callable[[str], Any],
        modalities: Sequence[str],
        selection: Mapping[str, Any],
        request: str,
        from_report: bool = False,
    ) -> None:
        self.modalities = frozenset(modalities)
        self.network = content("network")
        self.preprocessing = content("preprocessing")
        self.inferer = content("inferer")
        self.postprocessing = content("postprocessing")
        self.device = content("device")
        self.reader = PromptReader()
        self.dicom_results: DicomResults = content("dicom_results")
        self.selection = selection
        self.from_report = from_report
        self.request = request

    def __call__(self, folder: Path, output: Path, reports: Sequence[Path] = ()) -> Outcome:
        """Segment the series in a folder and write the results of each of its cases to a folder in `output`.

        The same series, prompt, weights and options give objects of the same UIDs, on any device.

        Args:
            reports: files of the study's reports, the latest of which in prose is the prompt where none was given.

        Raises:
            NothingToSegment: it is of another modality, a localizer, a result of this software or the like.
            CannotBeSegmented: no case of it could be segmented.
            OSError: results cannot be written.
        """
        self._check_kind(folder)
        try:
            cases = find_cases([folder], reports=reports, **self.selection)
        except AllExcludedError as error:
            raise NothingToSegment(_without(folder, f"{error.source}: {error.problem}")) from error
        except CaseError as error:
            raise CannotBeSegmented(_without(folder, str(error))) from error
        writer = _CaseWriter(output, _RepeatableObjects(self.dicom_results, self.request))
        evaluator = CaseEvaluator(
            CaseDataset(cases.references, self.preprocessing),
            self.network,
            self.inferer,
            self.postprocessing,
            self.device,
            val_handlers=[writer],
            reader=self.reader,
        )
        evaluator.run()
        if writer.problem is not None:
            raise writer.problem
        outcome = writer.outcome
        if self.from_report and not outcome.prompt_source:
            outcome.notes.append(_NO_REPORT)
        outcome.errors[:0] = [failure.error for failure in cases.failures]
        outcome.errors = [_without(folder, error) for error in outcome.errors]
        if outcome.errors and not writer.written:
            raise CannotBeSegmented(" ".join(outcome.errors))
        return outcome

    def _check_kind(self, folder: Path) -> None:
        """Refuse by the first file what need not be read further: all of a series have one modality and one maker."""
        header = _header(folder)
        if text(header, "Manufacturer") == MANUFACTURER:
            raise NothingToSegment("it is a result of this software")
        modality = text(header, "Modality").upper()
        if modality and modality not in self.modalities:
            raise NothingToSegment(f"its modality is {modality}, not {' or '.join(sorted(self.modalities))}")


class _RepeatableObjects:
    """Writes DICOM objects whose UIDs follow from the request, the prompt of a report included."""

    files = DICOM_FILES

    def __init__(self, dicom_results: DicomResults, request: str) -> None:
        self.dicom_results = dicom_results
        self.request = request

    def __call__(self, prediction: Prediction, folder: Path) -> ReportAdditions | None:
        reference = prediction.case.reference
        request = self.request
        if reference.prompt and reference.prompt_source == "DICOM SR":
            words = reference.prompt.encode("utf-8", "replace")
            request = hashlib.sha256(request.encode("ascii") + words).hexdigest()
        additions: ReportAdditions | None = self.dicom_results(prediction, folder, request=request)
        return additions


class _CaseWriter:
    """Writes each case as it comes out of the network; a handler of `CaseEvaluator`.

    Attributes:
        written: how many cases were.
        problem: of the disk, which is no fault of a case.
    """

    def __init__(self, output: Path, objects: ResultWriter) -> None:
        self.output = output
        self.objects = objects
        self.outcome = Outcome()
        self.written = 0
        self.problem: OSError | None = None

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.keep)

    def keep(self, engine: Engine) -> None:
        output = engine.state.output
        error = output.get("error")
        if error is None:
            try:
                written = write_prediction(
                    output["prediction"], self.output, output["seconds"], [self.objects]
                )
            except OSError as problem:
                self.problem = problem
                return
            except Exception as problem:  # the other cases of the series go on
                error = reason(problem, output["reference"])
        if error is not None:
            self.outcome.errors.append(error)
            return
        self.written += 1
        self.outcome.notes.extend(written["notes"])
        self.outcome.notes.extend(flag["text"] for flag in written["report"]["flags"])
        self.outcome.notes.extend(written["report"]["notices"])
        case_id = output["reference"].id
        if output["reference"].prompt:
            self.outcome.prompt_source = output["reference"].prompt_source
        for entry in written["report"].get("dicom", {}).values():
            self.outcome.objects[entry["sop_instance_uid"]] = f"{case_id}/{entry['file']}"


def _header(folder: Path) -> Dataset:
    """What kind of object the first file that can be read is; empty where none can."""
    for path in sorted(folder.iterdir()):
        try:
            with quiet():
                return pydicom.dcmread(
                    path, stop_before_pixels=True, specific_tags=["Manufacturer", "Modality"]
                )
        except Exception:  # pydicom raises every kind for what is not DICOM
            continue
    return Dataset()


def _without(folder: Path, sentence: str) -> str:
    """A sentence about files of a series that does not name the temporary folder they lie in."""
    return sentence.replace(f"{folder}/", "").replace(f"{folder}: ", "")
