"""Where configs/ and models/ lie: beside the package in a checkout, within it in an installed wheel."""

from pathlib import Path

#: Folder whose entry 'bundle' this package is.
IMPORTED_FROM = Path(__file__).resolve().parents[1]
_IN_WHEEL = Path(__file__).resolve().parent / "shipped"
#: Of the bundle, as MONAI has it.
ROOT = _IN_WHEEL if _IN_WHEEL.is_dir() else IMPORTED_FROM
CONFIGS = ROOT / "configs"
MODELS = ROOT / "models"
