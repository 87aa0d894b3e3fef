"""What became of a case, as the journal has it, once its results are written."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.atomic import remove_leftovers
from bundle.cases import CaseReference
from bundle.inference.evaluator import reason
from bundle.inference.journal import checks_of
from bundle.results import write_prediction
from bundle.results.files.slides import write_slide
from bundle.results.result_files import ResultWriter

#: What the journal needs of a case and run.json does not.
INTERNAL = ("fingerprint", "checks", "notices")
#: The sentences themselves, for the terminal; report.json has them.
WARNINGS = "warning_texts"


class CaseResults:
    """Writes the results of one case after the other.

    Args:
        output_dir: of the run.
        writers: of further files of each case, see `bundle.results.write_prediction`.
        write: False writes nothing and gives the entries alone.
    """

    def __init__(
        self, output_dir: Path | str, writers: Sequence[ResultWriter] = (), write: bool = True
    ) -> None:
        self.output_dir = Path(os.path.abspath(output_dir))  # actors of Ray work in a folder of their own
        self.writers = writers
        self.write = write

    def __call__(self, output: Mapping[str, Any]) -> dict[str, Any]:
        """The entry of a case.

        Args:
            output: of `bundle.inference.evaluator.CaseSegmenter`.
        """
        reference: CaseReference = output["reference"]
        error = output.get("error")
        written: dict[str, Any] = {}
        if error is None and self.write:
            try:
                written = self._written(output)
            except OSError as problem:
                remedy = "free space or give another folder"
                error = reference.deidentify(
                    f"{reference.image}: the result could not be written ({problem}); {remedy}."
                )
            except Exception as problem:  # the rest of the batch goes on
                error = reason(problem, reference)
        if error is not None and self.write:
            remove_leftovers(self.output_dir / reference.id)  # of a process that died over it
        seconds = float(output["seconds"])
        entry = entry_of(reference.id, reference.shown, error, seconds=seconds)
        return {**entry, **written, "fingerprint": output["fingerprint"]}

    def _written(self, output: Mapping[str, Any]) -> dict[str, Any]:
        if "slide" in output:
            result = write_slide(output["slide"], self.output_dir, output["seconds"], self.writers)
        else:
            result = write_prediction(output["prediction"], self.output_dir, output["seconds"], self.writers)
        return {
            "files": result["files"],
            "warnings": len(result["report"]["warnings"]),
            "flags": [flag["text"] for flag in result["report"]["flags"]],
            WARNINGS: list(result["report"]["warnings"]),
            "notices": result["report"]["notices"],
            "checks": checks_of(self.output_dir, result["files"]),
        }


def entry_of(case_id: str, shown: str, error: str | None, seconds: float = 0.0) -> dict[str, Any]:
    """A case as run.json has it, without files.

    Args:
        shown: where it lies, as results name it.
    """
    return {
        "id": case_id,
        "input": shown,
        "status": "done" if error is None else "failed",
        "error": error,
        "files": [],
        "warnings": 0,
        "seconds": round(seconds, 3),
    }
