"""What MONAI Label's server runs of the bundle gives the same masks with its NumPy 1 and pydicom 2 as with ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from bundle.phantoms import write_phantoms
from tests.conftest import ENVIRONMENT, ROOT, SIZES
from tests.support.pacs_node import phantom_series

#: NumPy and pydicom as pinned in requirements/label.txt, and nothing else; `make test` puts them there.
VERSIONS = ROOT / ".cache" / "label-versions"
pytestmark = pytest.mark.skipif(
    sys.version_info[:2] != (3, 11) or not (VERSIONS / "numpy").is_dir(),
    reason="the versions of MONAI Label's environment, which has Python 3.11, are not there (make label-versions)",
)
#: As the server does it: a path becomes a mask by preprocessing, inferer and postprocessing. Also what it does to
#: slides, polygons and requests is loaded.
SCRIPT = """
import sys
import numpy, pydicom, torch, yaml
from monai.bundle import ConfigParser
import bundle.serving.label.guard, bundle.serving.label.regions
torch.set_num_threads(1)
output, weights, settings, *paths = sys.argv[1:]
parser = ConfigParser()
parser.read_config("configs/inference.yaml")
parser.config.update({"bundle_root": ".", **yaml.safe_load(open(settings))})
names = ("network_def", "preprocessing", "inferer", "postprocessing", "slides")
network, before, inferer, after, _ = (parser.get_parsed_content(name, instantiate=True) for name in names)
network.load_state_dict(torch.load(weights, weights_only=True))
network.eval()
masks = {}
for path in paths:
    data = before({"image": path})
    with torch.no_grad():
        data["pred"] = inferer(data["image"][None], network)[0]
    masks[path] = numpy.asarray(after(data)["pred"])
numpy.savez(output, numpy_version=numpy.__version__, pydicom_version=pydicom.__version__, **masks)
"""


def test_masks_do_not_depend_on_the_versions(tiny: Any, tmp_path: Path) -> None:
    paths = [str(phantom_series(3).write(tmp_path / "dicom"))]
    for modality in ("CT", "X-ray", "H&E"):
        folder = tmp_path / modality[0]
        write_phantoms(folder, modality, [7], split="test", **SIZES[modality])  # type: ignore[arg-type]
        paths += [str(path) for path in (folder / "images").iterdir()]
    found = []
    for number, first in enumerate(([], [str(VERSIONS)])):
        output = tmp_path / f"{number}.npz"
        path = ":".join([*first, str(ROOT)])
        command = [sys.executable, "-c", SCRIPT, str(output), str(tiny.trained), str(tiny.config), *paths]
        subprocess.run(command, cwd=ROOT, env={**ENVIRONMENT, "PYTHONPATH": path}, check=True)
        found.append(dict(np.load(output)))
    versions = [(str(one.pop("numpy_version")), str(one.pop("pydicom_version"))) for one in found]
    assert versions[0] == (np.__version__, pydicom.__version__)
    assert [tuple(map(int, one.split(".")[:2])) for one in versions[1]] == [(1, 26), (2, 4)]
    ours, theirs = found
    assert set(ours) == set(paths) == set(theirs)
    assert all(np.array_equal(ours[one], theirs[one]) for one in paths)
    assert any(mask.any() for mask in ours.values()), "masks of nothing would prove little"
