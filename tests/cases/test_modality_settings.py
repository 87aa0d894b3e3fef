"""The settings of each modality: what a configuration says of them, and what is refused."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from bundle.cases.modality_settings import CtSettings, modality_settings

CONFIG = yaml.safe_load((Path(__file__).resolve().parents[2] / "configs" / "inference.yaml").read_text())
GROUPS = {name: CONFIG[name] for name in ("ct", "xray", "histology")}


def test_the_configuration_names_every_setting() -> None:
    settings = modality_settings(**GROUPS)
    for name, group in GROUPS.items():
        listed = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(getattr(settings, name)).items()
        }
        assert listed == group
    assert settings.of("CT") is settings.ct and settings.of("H&E") is settings.histology
    assert (
        settings.is_mirrored("X-ray") and not settings.is_mirrored("H&E") and not settings.is_mirrored("CT")
    )


@pytest.mark.parametrize(
    ("group", "changes", "message"),
    [
        ("ct", {"windwo": [0.0, 1.0]}, r"ct#windwo is not known; did you mean ct#window\?"),
        (
            "ct",
            {"window": [275.0, -125.0]},
            r"ct#window must be two numbers that rise .*, not \[275.0, -125.0\]",
        ),
        ("ct", {"window": [-1000.0, 0.0]}, "ct#window"),
        ("ct", {"window": 5}, "ct#window"),
        ("ct", {"air": 0.1}, "ct#air must be a number of at most 0, not 0.1"),
        ("ct", {"spacing": [1.0, 0.0, 1.0]}, "ct#spacing"),
        ("ct", {"percentiles": [99.5, 0.5]}, "ct#percentiles"),
        ("ct", {"in_plane_size": 0}, "ct#in_plane_size"),
        ("ct", {"slice_distance": 0}, "ct#slice_distance must be a whole number of at least 1, not 0"),
        ("ct", {"views": []}, "ct#views must be a list with some of axial, coronal, sagittal, not "),
        (
            "ct",
            {"views": ["axial", "axial"]},
            "ct#views must be a list with some of axial, coronal, sagittal",
        ),
        (
            "ct",
            {"views": "axial"},
            "ct#views must be a list with some of axial, coronal, sagittal, not 'axial'",
        ),
        ("ct", {"temperature": "1.5"}, "ct#temperature must be a number from 0.01 to 100, not '1.5'"),
        ("ct", {"mirrored": True}, "ct#mirrored is not known; it has temperature, window"),
        ("xray", {"temperature": 0.0}, "xray#temperature"),
        ("xray", {"size": 12.5}, "xray#size"),
        ("xray", {"sides": "viewer"}, "xray#sides must be 'auto', 'image' or 'patient', not 'viewer'"),
        ("xray", {"photometric": "RGB"}, "xray#photometric must be MONOCHROME1 or MONOCHROME2, not 'RGB'"),
        ("xray", {"mirrored": "yes"}, "xray#mirrored must be True or False"),
        ("histology", {"zoom": 0.0}, "histology#zoom"),
        (
            "histology",
            {"resolution": 80.0},
            "histology#resolution must be micrometres per pixel from 0.05 to 10.0",
        ),
    ],
)
def test_what_cannot_be_is_refused(group: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        modality_settings(**{**GROUPS, group: {**GROUPS[group], **changes}})


def test_a_group_that_replaces_another_has_to_be_whole() -> None:
    with pytest.raises(ValueError, match="ct lacks temperature; change single settings by ct#NAME"):
        CtSettings.of({"window": [0.0, 1.0]})
