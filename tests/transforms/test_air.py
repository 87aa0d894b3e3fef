"""Air and lung below the CT window: mapped as written, and shown clipped or filled at random in training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy.ndimage import maximum_filter

from bundle.transforms.intensity import RandAird, WindowHounsfieldd


@pytest.mark.parametrize("air", [0.0, -0.4])
def test_hounsfield_units_below_the_window_fall_evenly_to_air(air: float) -> None:
    hu = np.linspace(-2000, 1000, 240).astype(np.float32).reshape(1, 6, 10, 4)
    result = WindowHounsfieldd("image", (-125.0, 275.0), air)({"image": MetaTensor(hu)})["image"]
    naive = np.interp(hu, [-1000, -125, 275], [air, 0.0, 1.0])
    assert np.allclose(np.asarray(result), naive, atol=1e-6)


def slice_with_air() -> torch.Tensor:
    image = torch.rand(3, 32, 32) * 0.9 + 0.1
    image[:, 4:16, 4:16] = 0.0  # clipped lung
    image[:, 20, 20] = 0.0  # noise in fat
    return image


def drawn(image: torch.Tensor, clip: float, fill: float) -> torch.Tensor:
    transform = RandAird("image", -0.4, clip=clip, fill=fill)
    transform.set_random_state(seed=3)
    return torch.as_tensor(transform({"image": MetaTensor(image)})["image"])


def test_wide_clipped_areas_are_filled_with_air_and_single_pixels_are_not() -> None:
    image = slice_with_air()
    result = drawn(image, clip=0.0, fill=1.0)
    changed = (result != image).numpy()
    wide = maximum_filter(image.numpy(), (1, 5, 5), mode="constant", cval=0.0) == 0.0
    assert wide.any()
    assert np.array_equal(changed, wide)
    values = result[torch.from_numpy(wide)].unique()
    assert len(values) == 1
    assert -0.4 <= float(values) <= -0.2


def test_clipping_hides_what_lies_below_the_window_and_nothing_else() -> None:
    image = slice_with_air() - 0.2
    assert torch.equal(drawn(image, clip=1.0, fill=0.0), image.clamp(min=0.0))
    assert torch.equal(drawn(image, clip=0.0, fill=0.0), image)
