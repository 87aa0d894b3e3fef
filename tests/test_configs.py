"""The configurations are a valid bundle: metadata, properties of each workflow, and one truth for what they share."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from monai.bundle import ConfigParser, ConfigWorkflow, verify_metadata, verify_net_in_out

import bundle
from bundle.cases.modality_settings import CtSettings, ModalitySettings
from bundle.cases.structures import shipped_structures
from bundle.learning import TrainingImages, training_references
from bundle.networks import count_parameters
from bundle.networks.fusion import CrossModalBlock
from bundle.transforms import augmentation, preprocessing

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "configs"


@pytest.fixture(autouse=True)
def from_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # configurations name each other relative to it


def metadata() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((CONFIGS / "metadata.json").read_text(encoding="utf-8"))
    return content


def test_metadata_passes_the_offline_schema() -> None:
    verify_metadata(
        meta_file=str(CONFIGS / "metadata.json"), filepath=str(ROOT / "tests" / "meta_schema.json")
    )


@pytest.mark.parametrize("field", ["version", "network_data_format", "required_packages_version"])
def test_the_offline_schema_refuses_metadata_without_a_required_field(field: str, tmp_path: Path) -> None:
    broken = metadata()
    del broken[field]
    path = tmp_path / "metadata.json"
    path.write_text(json.dumps(broken))
    with pytest.raises(ValueError, match="Failed validating"):
        verify_metadata(meta_file=str(path), filepath=str(ROOT / "tests" / "meta_schema.json"))


def test_the_top_level_metadata_is_the_one_in_configs() -> None:
    assert (ROOT / "metadata.json").resolve() == (CONFIGS / "metadata.json").resolve()


def test_versions_agree() -> None:
    described = metadata()
    assert described["version"] == bundle.__version__
    assert described["version"] in described["changelog"]
    assert f"## {bundle.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_pinned_versions_are_the_installed_ones() -> None:
    from importlib.metadata import version

    described = metadata()
    named = {
        "monai": described["monai_version"],
        "torch": described["pytorch_version"],
        "numpy": described["numpy_version"],
        **described["required_packages_version"],
    }
    # metadata names the versions of Python 3.11; other versions of Python have other wheels of some packages
    if sys.version_info[:2] != (3, 11):
        pytest.skip("metadata.json describes the environment of Python 3.11")
    assert {name: version(name).split("+")[0] for name in named} == named


def test_the_network_takes_and_gives_what_metadata_says() -> None:
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(CONFIGS / "metadata.json"),
        config_file=str(CONFIGS / "inference.yaml"),
        device="cpu",
        n=2,
        steps=1,
        denoiser_width=16,
        upsample_widths=[8, 8],
    )


@pytest.fixture
def required_properties(tiny_settings: dict[str, Any]) -> Callable[..., list[str] | None]:
    def missing(workflow_type: str, files: list[str], **overrides: Any) -> list[str] | None:
        workflow = ConfigWorkflow(
            config_file=[str(CONFIGS / name) for name in files],
            logging_file=False,
            workflow_type=workflow_type,
            **{**tiny_settings, **overrides},
        )
        workflow.initialize()
        return workflow.check_properties()

    return missing


def test_inference_has_every_property(
    required_properties: Callable[..., Any], phantoms: dict[str, Path], tiny: Any, tmp_path: Path
) -> None:
    missing = required_properties(
        "inference",
        ["inference.yaml"],
        input=str(phantoms["CT"]),
        output_dir=str(tmp_path),
        weights=str(tiny.random),
    )
    assert missing == []


def test_evaluation_has_every_property(
    required_properties: Callable[..., Any], phantoms: dict[str, Path], tiny: Any, tmp_path: Path
) -> None:
    missing = required_properties(
        "inference",
        ["inference.yaml", "evaluate.yaml", "data_ct_abdomen.yaml"],
        datalist=str(phantoms["CT"]),
        split="validation",
        output_dir=str(tmp_path),
        weights=str(tiny.random),
    )
    assert missing == []


def test_training_has_every_property(
    required_properties: Callable[..., Any], phantoms: dict[str, Path], tmp_path: Path
) -> None:
    missing = required_properties(
        "train",
        ["inference.yaml", "train.yaml", "data_ct_abdomen.yaml"],
        datalist=str(phantoms["CT"]),
        output_dir=str(tmp_path),
        images_per_epoch=4,
        batch_size=2,
        image_size=64,
    )
    assert missing == []


@pytest.mark.parametrize(("name", "most"), [("train.yaml", 130), ("evaluate.yaml", 60)])
def test_evaluation_and_training_are_overlays(name: str, most: int) -> None:
    text = (CONFIGS / name).read_text(encoding="utf-8")
    assert "%configs/inference.yaml" not in text and text.count("\n") < most
    base = yaml.safe_load((CONFIGS / "inference.yaml").read_text(encoding="utf-8"))
    overlay = yaml.safe_load(text)
    copies = {key for key in overlay if key in base and overlay[key] == base[key]}
    assert not copies


def test_a_papers_file_overrides_network_and_loss_and_a_data_sets_file_does_not() -> None:
    network = {
        "image_prior",
        "fusion",
        "denoiser_width",
        "upsample_widths",
        "time_conditioning",
        "schedule_shift",
    }
    paper = set(yaml.safe_load((CONFIGS / "medconddiff.yaml").read_text(encoding="utf-8")))
    assert network <= paper
    for path in CONFIGS.glob("data_*.yaml"):
        assert not network & set(yaml.safe_load(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("workflow", ["train.yaml", "evaluate.yaml", "inference.yaml"])
def test_every_override_of_the_other_files_exists_where_it_is_merged(workflow: str) -> None:
    """A misspelt id in a data set's or a paper's file would be taken for a new item and ignored."""
    known = ConfigParser()
    known.read_config([str(CONFIGS / f"{name}.yaml") for name in ("inference", "train", "evaluate")])
    papers = [CONFIGS / f"{paper}.yaml" for paper in ("medconddiff", "lcpdn", "fasttextdiff")]
    published = CONFIGS / "published_encoders.yaml"
    # a network of its own has ids of its own, which its definition names
    own = set(re.findall(r"@(\w+)", "".join(path.read_text(encoding="utf-8") for path in papers)))
    for path in [*CONFIGS.glob("data_*.yaml"), *papers, published]:
        ConfigParser().read_config(
            [str(CONFIGS / name) for name in ("inference.yaml", workflow)] + [str(path)]
        )
        for key in yaml.safe_load(path.read_text(encoding="utf-8")):
            assert key in known or key in own or key == "published_text_encoder", (path.name, key)


@pytest.mark.parametrize(
    ("paper", "options", "trainable"),
    [
        ("lcpdn", {}, 4_493_176),
        ("lcpdn", {"decoder_blocks": [6, 8, 12, 16], "fusion_width": 160}, 4_505_104),
        ("fasttextdiff", {}, 10_865_772),
        ("fasttextdiff", {"decoder_blocks": [6, 8, 12, 16]}, 9_686_124),
    ],
)
def test_published_encoders_make_the_papers_sizes(
    paper: str, options: dict[str, Any], trainable: int
) -> None:
    """With the bundle's twelve channels in place of two, 2,890 parameters more than the papers'."""
    parser = ConfigParser()
    files = ("inference.yaml", f"{paper}.yaml", "published_encoders.yaml")
    parser.read_config([str(CONFIGS / name) for name in files])
    overrides = {
        "bundle_root": str(ROOT),
        "image_ddpm": None,
        "text_encoder": None,
        "text_layout": "bert_base",
        "vision_encoder": None,
        "vision_layout": "clip_vit_b32",
    }
    for name, value in {**overrides, **options}.items():
        parser[name] = value
    with torch.device("meta"):
        network = parser.get_parsed_content("network_def")
    assert count_parameters(network, trainable=True) == trainable


def test_the_papers_ablation_is_one_value_away() -> None:
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / name) for name in ("inference.yaml", "lcpdn.yaml")])
    overrides = {"image_ddpm": None, "image_ddpm_layout": "compact", "vision_encoder": None}
    overrides |= {"vision_layout": "compact", "bundle_root": str(ROOT), "prompt_block": False}
    for name, value in {**overrides, "text_fusion": "cross_attention"}.items():
        parser[name] = value
    network = parser.get_parsed_content("network_def")
    assert network.prompt is None and isinstance(network.fusions[0], CrossModalBlock)
    parser.parse(reset=True)
    parser["read_text"] = False
    assert not parser.get_parsed_content("network_def").reads_text


def test_no_room_knows_a_workflow_or_a_room_to_its_right() -> None:
    """cases -> transforms -> networks (with diffusion) -> results; workflows use rooms, serving uses workflows."""
    import ast

    order = {"cases": 0, "transforms": 1, "diffusion": 2, "networks": 2, "results": 3}
    workflows = {"learning", "scoring", "inference"}
    for path in (ROOT / "bundle").rglob("*.py"):
        room = path.relative_to(ROOT / "bundle").parts[0]
        if room not in order and room not in workflows:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("bundle."):
                continue
            other = (node.module or "").split(".")[1]
            if room in order:
                assert other not in workflows | {"serving"}, f"{path} imports {node.module}"
                assert order.get(other, 0) <= order[room], f"{path} imports {node.module}"
            else:
                assert other not in (workflows | {"serving"}) - {room}, f"{path} imports {node.module}"


def test_two_processes_train_as_the_distributed_configuration_says(
    phantoms: dict[str, Path], tmp_path: Path
) -> None:
    files = "['configs/inference.yaml','configs/train.yaml','configs/multi_gpu_train.yaml']"
    # of two sizes in a step one process may have both and the other one
    sizes = "--image_size {'CT':64,'X-ray':64,'H&E':96} --ct#spacing [8.0,8.0,20.0]"
    network = "--denoiser_width 16 --upsample_widths [8,8]"
    schedule = "--epochs 1 --images_per_epoch 32 --batch_size 2 --num_workers 0"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    command = [
        "-m",
        "monai.bundle",
        "run",
        "--config_file",
        files,
        *sizes.split(),
        *network.split(),
        *schedule.split(),
    ]
    places = ["--datalist", f"['{phantoms['CT']}','{phantoms['H&E']}']", "--output_dir", str(tmp_path)]
    done = subprocess.run(
        [*launcher, *command, *places], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "latest.pt").is_file()
    assert (tmp_path / "model.pt").is_file()
    structures = shipped_structures()
    drawn = TrainingImages(
        training_references([phantoms["CT"], phantoms["H&E"]], "training"),
        preprocessing(structures, ModalitySettings(ct=CtSettings(spacing=(8.0, 8.0, 20.0)))),
        augmentation(64),
        structures,
        images_per_epoch=32,
        progress=False,
    )
    modalities = [drawn.items[drawn.units[int(unit)][0]]["modality"] for unit in drawn.plan]
    steps = [
        (modalities[start : start + 4 : 2], modalities[start + 1 : start + 4 : 2])
        for start in range(0, 32, 4)
    ]
    assert any(len(set(first)) != len(set(second)) for first, second in steps)


@pytest.mark.parametrize(
    "paper", [(), ("medconddiff",), ("lcpdn",), ("fasttextdiff",), ("lcpdn", "published_encoders")]
)
def test_pictures_and_slides_are_shown_at_the_same_resolution(paper: tuple[str, ...]) -> None:
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / f"{name}.yaml") for name in ("inference", *paper)])
    settings = parser["histology"]
    assert settings["resolution"] == pytest.approx(0.25 / settings["zoom"], rel=1e-3)
    expected = 0.256 if "published_encoders" in paper else 0.5 if paper else 1.0
    assert settings["zoom"] == expected
