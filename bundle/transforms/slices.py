"""2.5-D: an axial slice and its neighbours as channels."""

from __future__ import annotations

import torch
from torch import Tensor
