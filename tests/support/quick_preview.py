"""A preview for tests of other things: drawing a real one takes longer than all the rest of a result."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle.results import Prediction, writer
from bundle.results.pictures.encoding import encode_png
from bundle.results.pictures.preview import PANEL_KEY


def use_quick_preview(patch: pytest.MonkeyPatch) -> None:
    """Write a small picture with a mask panel in place of previews."""

    def write(_prediction: Prediction, _report: Mapping[str, Any], path: Path) -> None:
        pixels = np.random.default_rng(0).integers(0, 255, (30, 90, 3)).astype(np.uint8)
        path.write_bytes(encode_png(pixels, [], 100_000, PANEL_KEY, (30, 0, 60, 30)))

    patch.setattr(writer, "write_preview", write)
