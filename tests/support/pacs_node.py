"""Series to send, ports to send them to, and patience."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

from bundle.phantoms import ct_phantom
from tests.support.dicom_files import Ct, report, set_pixels

NAMES = ("Sorrow", "HX-48151", "19550312", "20200229")  # of the patient, who must never come up


def phantom_series(
    seed: int = 0,
    shape: tuple[int, int, int] = (32, 32, 8),
    spacing: tuple[float, float, float] = (12.0, 12.0, 24.0),
) -> Ct:
    """A CT phantom as DICOM, in memory."""
    volume = ct_phantom(seed, shape=shape, spacing=spacing).image
    ct = Ct(count=shape[2], step=spacing[2])
    for index, dataset in enumerate(ct.slices):
        dataset.PixelSpacing = [spacing[1], spacing[0]]
        set_pixels(dataset, volume[:, :, index].T.astype("int16") + 1024, intercept=-1024)
    return ct


def study_report(study: str, text: str, by: str = "Hospital") -> Any:
    """A Basic Text SR of a study with the findings `text`, in memory."""
    written = report(study, ("Findings", text))
    written.Manufacturer = by
    return written


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait_for(condition: Callable[[], Any], seconds: float) -> None:
    """Wait until something holds, or fail."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
