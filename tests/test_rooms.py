"""Who may import whom: the order of the rooms, and no circle of modules."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: Each room imports itself and what stands on a lower step.
STEPS = (
    ("atomic", "exit_codes", "folder_lock", "json_lines", "root", "worker_items"),
    ("cases",),
    ("settings", "transforms", "wording"),
    ("diffusion",),
    ("networks",),
    ("results",),
    ("learning", "scoring", "inference", "exporting"),
    ("serving",),
    ("commands",),
    ("segmenter", "__main__"),
    ("",),
)
#: Beside the house: they make, convert or measure, and nothing above needs them.
BESIDE = ("phantoms", "datasets", "benchmarks")


def modules() -> dict[str, Path]:
    names = {}
    for path in (ROOT / "bundle").rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imports(path: Path, known: dict[str, Path], typing: bool = True) -> set[str]:
    """The modules of the bundle that a file imports, at its top or within a function.

    Args:
        typing: also those under `if TYPE_CHECKING:`.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if not typing:
        tree.body = [
            node
            for node in tree.body
            if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        ]
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in known}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (names & known.keys()) or ({node.module or ""} & known.keys())
    return found


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_no_room_imports_one_to_its_right() -> None:
    """Imports for types alone count too: what a room speaks of, it knows."""
    known = modules()
    step = {name: number for number, names in enumerate(STEPS) for name in names}
    assert {room(name) for name in known} <= {*step, *BESIDE}
    for module, path in known.items():
        for imported in imports(path, known):
            here, there = room(module), room(imported)
            if here == there or there == "" or here in BESIDE:
                continue
            assert there not in BESIDE, f"{module} imports {imported}"
            assert step[there] < step[here], f"{module} imports {imported}"


def test_only_commands_read_the_command_line() -> None:
    for module, path in modules().items():
        if room(module) not in ("commands", "__main__", *BESIDE):
            assert "argparse" not in path.read_text(encoding="utf-8"), module


def test_no_circles() -> None:
    known = modules()
    graph = {module: imports(path, known, typing=False) - {module} for module, path in known.items()}
    # a module also needs the package that it lies in, which is no arrow of its own
    list(graphlib.TopologicalSorter(graph).static_order())
