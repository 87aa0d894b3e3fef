"""Evaluations by the bundle's own configurations, in this process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow

ROOT = Path(__file__).resolve().parents[2]


def evaluation(configs: Sequence[Path], output: Path, **overrides: Any) -> ConfigWorkflow:
    """configs/evaluate.yaml, with configuration files and overrides over it, initialised."""
    workflow = ConfigWorkflow(
        config_file=[
            str(file)
            for file in (*(ROOT / "configs" / name for name in ("inference.yaml", "evaluate.yaml")), *configs)
        ],
        logging_file=False,
        workflow_type="inference",
        **{"bundle_root": ROOT, "progress": False, "output_dir": output, **overrides},
    )
    workflow.initialize()
    return workflow


def evaluated(workflow: ConfigWorkflow, output: Path) -> tuple[dict[str, Any], dict[str, float]]:
    """summary.json of one run, and the seconds of each case by its id.

    Raises:
        RuntimeError: a case failed.
    """
    workflow.evaluator.run()
    run, summary = (json.loads((output / name).read_text()) for name in ("run.json", "summary.json"))
    for case in run["cases"]:
        if case["status"] != "done":
            raise RuntimeError(case["error"])
    return summary, {case["id"]: case["seconds"] for case in run["cases"]}
