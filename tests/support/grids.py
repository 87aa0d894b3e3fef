"""Modality settings for phantoms of a few pixels."""

from bundle.cases.modality_settings import CtSettings, HistologySettings, ModalitySettings, XraySettings

SMALL_GRIDS = ModalitySettings(
    ct=CtSettings(spacing=(8.0, 8.0, 20.0)), xray=XraySettings(size=64), histology=HistologySettings(zoom=0.5)
)
