"""What the tests of MONAI Label's server share: one bundle, one server, and what the command gives for its images."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image

from bundle.phantoms import write_phantoms
from bundle.phantoms.slide import write_slide_phantom
from tests.conftest import CONFIGS, ROOT, SIZES, TINY
from tests.support.label_server import HOSTILE, PROMPTS, Server, mask_below, segment, started
from tests.support.pacs_node import phantom_series
from tests.support.quick_preview import use_quick_preview

INSTALLED = ROOT / ".venv-label" / ".installed"
#: Standard deviations of random weights with which masks have many labels and prompts name some of them.
SPREAD = {"naming.score.weight": 0.8, "denoiser.head.0.weight": 3.0}
#: The small network of the other tests, which reads prompts.
SETTINGS = {**TINY, "read_text": True}


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory, workflow: Callable[..., Any]) -> Path:
    """The bundle with a small network, whose prompts name something: everything else is linked."""
    if not INSTALLED.exists():
        pytest.skip("MONAI Label's environment is not set up; run `make label-setup`")
    root = tmp_path_factory.mktemp("label") / "bundle root"
    (root / "models").mkdir(parents=True)
    shutil.copytree(CONFIGS, root / "configs")
    for name in ("bundle", "scripts", "requirements", "metadata.json", "models/text_prior", ".venv-label"):
        (root / name).symlink_to(ROOT / name)
    settings = yaml.safe_load((CONFIGS / "inference.yaml").read_text())
    (root / "configs" / "inference.yaml").write_text(
        yaml.safe_dump({**settings, **SETTINGS}, sort_keys=False)
    )
    torch.manual_seed(0)
    network = workflow("inference.yaml", read_text=True).parser.get_parsed_content("network_def")
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.ndim > 1 and not weight.any():
                torch.nn.init.normal_(weight, std=0.05)
            if name in SPREAD:
                torch.nn.init.normal_(weight, std=SPREAD[name])
    torch.save(network.state_dict(), root / "models" / "model.pt")
    (root / "tiny.yaml").write_text(yaml.safe_dump(SETTINGS))
    return root


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name of a kind -> image; a series is a folder."""
    folder = tmp_path_factory.mktemp("files")
    found: dict[str, Path] = {}
    for modality, kind in (("CT", "nifti"), ("X-ray", "png"), ("H&E", "tile")):
        write_phantoms(folder / kind, modality, [7], split="test", **SIZES[modality])  # type: ignore[arg-type]
        [found[kind]] = (folder / kind / "images").iterdir()
    found["tiff"] = folder / "tile.tiff"
    Image.open(found["tile"]).crop((0, 0, 96, 64)).save(found["tiff"], compression="tiff_lzw")
    # axes and slopes that a careless way through another library would lose
    volume = nibabel.load(found["nifti"])
    turned = np.asarray(volume.dataobj)[::-1].transpose(1, 0, 2)
    affine = volume.affine @ np.array(
        [[0, -1, 0, turned.shape[1] - 1], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]
    )
    found["turned"] = folder / "turned.nii"
    nibabel.save(nibabel.Nifti1Image(turned, affine), found["turned"])
    found["dicom"] = phantom_series(3).write(folder / "dicom")
    found["slide"] = folder / "slide.tif"
    write_slide_phantom(found["slide"], 1300, 900, tissue=0.6)
    return found


@pytest.fixture(scope="session")
def server(root: Path, files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    studies = tmp_path_factory.mktemp("studies")
    for kind in ("nifti", "png", "tile", "tiff", "turned", "slide"):
        suffix = "".join(files[kind].suffixes)
        shutil.copy(files[kind], studies / f"{kind}{suffix}")
    yield from started(root, studies, tmp_path_factory.mktemp("home") / "label")


@pytest.fixture(scope="session")
def command(
    root: Path, files: dict[str, Path], made_once: Callable[..., Path]
) -> Callable[..., NDArray[np.uint8]]:
    """The mask that `python -m bundle segment` writes for (kind, prompt): one run over copies of the images."""
    few = [(kind, prompt) for kind in ("turned", "png", "tile", "tiff") for prompt in ("", *PROMPTS[:2])]
    kinds = [
        *(("nifti", prompt) for prompt in ("", *PROMPTS)),
        *few,
        *(("png", prompt) for prompt in HOSTILE),
    ]
    asked = {key: f"case_{number:02}" for number, key in enumerate(kinds)}

    def fill(folder: Path) -> None:
        (folder / "images").mkdir()
        for (kind, _), name in asked.items():
            shutil.copy(files[kind], folder / "images" / f"{name}{''.join(files[kind].suffixes)}")
        (folder / "prompts.json").write_text(
            json.dumps({name: prompt for (_, prompt), name in asked.items()})
        )
        segment(root, folder / "images", folder / "out", "--prompt-file", folder / "prompts.json")
        for prompt in ("", "liver"):
            options = ("--prompt", prompt) if prompt else ()
            segment(root, files["dicom"], folder / f"dicom {prompt}", *options)
        segment(root, files["slide"], folder / "slide")

    with pytest.MonkeyPatch.context() as patch:
        use_quick_preview(patch)
        folder = made_once("label_masks", fill)
    masks = {key: mask_below(folder / "out" / name) for key, name in asked.items()}
    masks["slide", ""] = tifffile.imread(folder / "slide" / "slide" / "mask.tif")
    masks |= {("dicom", prompt): mask_below(folder / f"dicom {prompt}") for prompt in ("", "liver")}
    return lambda kind, prompt="": masks[kind, prompt]
