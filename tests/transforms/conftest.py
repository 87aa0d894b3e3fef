"""What the tests of the transforms share."""

from __future__ import annotations

import pytest

from bundle.cases.structures import Structures


@pytest.fixture(scope="session")
def structures() -> Structures:
    return Structures(
        [
            {"name": "spleen", "modality": "CT"},
            {"name": "COVID-19 infection", "modality": "X-ray"},
            {"name": "liver", "modality": "CT"},
            {"name": "nucleus", "modality": "H&E"},
        ]
    )
