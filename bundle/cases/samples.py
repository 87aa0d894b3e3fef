"""Real images that installed packages bring along, for a first look and for tests without a download."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from bundle.cases.case import Modality


@dataclass(frozen=True)
class Sample:
    """A real image on this machine.

    Attributes:
        name: short, safe as a folder name.
        modality: what the image is to the network.
        path: the file, inside the installed package.
        origin: what it shows, where it comes from and under which terms.
    """

    name: str
    modality: Modality
    path: Path
    origin: str


# (name, modality, package, file within the package, origin)
_KNOWN: tuple[tuple[str, Modality, str, str, str], ...] = (
    (
        "thorax_ct_slice",
        "CT",
        "pydicom",
        "data/test_files/CT_small.dcm",
        "one DICOM slice of 128 x 128 pixels through a thoracic vertebra with aorta and lungs, reduced from "
        "NEMA's CT1_UNC; pydicom's test files (MIT package; 'no restriction on using any of these files')",
    ),
    (
        "colon_ihc_tile",
        "H&E",
        "skimage",
        "data/ihc.png",
        "colonic glands, 512 x 512 pixels, haematoxylin with DAB instead of eosin: its nuclear stain is that "
        "of H&E, the brown is not; CMMI, in scikit-image's data (no known copyright restrictions)",
    ),
)


def installed_samples() -> list[Sample]:
    """Finds the real images that the installed dependencies ship; nothing is downloaded.

    - `thorax_ct_slice`: CT, DICOM, from pydicom's test files. The package is under the MIT licence; its
      notes on the files say that no restriction on their use is known and that names were replaced. A
      single slice of a narrow field of view: it shows that reading works, not how well organs are found.
    - `colon_ihc_tile`: microscopy, PNG, from scikit-image (BSD-3-Clause); the package states no known
      copyright restrictions for it. Immunohistochemistry, so its colours differ from H&E.

    The other CT files in these packages show heads or a few pixels, and no installed package ships a chest
    radiograph or an H&E slide.

    Returns:
        What is really there, in a fixed order; empty where the packages come without their data.
    """
    samples = []
    for name, modality, package, file, origin in _KNOWN:
        spec = importlib.util.find_spec(package)
        for root in (spec.submodule_search_locations or []) if spec else []:
            path = Path(root) / file
            if path.is_file():
                samples.append(Sample(name, modality, path, origin))
                break
    return samples
