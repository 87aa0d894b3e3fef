"""The kinds of image that the network knows."""

from __future__ import annotations

from typing import Literal, get_args

Modality = Literal["CT", "X-ray", "H&E"]
MODALITIES: tuple[Modality, ...] = get_args(Modality)
#: Of grey pictures: whether low values are black (MONOCHROME2) or white (MONOCHROME1), DICOM PS3.3 C.7.6.3.1.2.
Photometric = Literal["MONOCHROME1", "MONOCHROME2"]
