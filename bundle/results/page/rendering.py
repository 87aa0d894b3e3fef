"""Templates, style and scripts put together into pages that load nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.colors import to_hex

from bundle.results.pictures.preview import volume_text

STATIC = Path(__file__).parent / "static"
_TEMPLATES = Path(__file__).parent / "templates"


def render(name: str, *, loads_scripts: bool = False, **content: Any) -> str:
    """The page of templates/`name`.html with page.css and `name`.js inlined.

    Every value is escaped. The page's Content-Security-Policy names style and script by their hashes, so that nothing
    else in it could run or be fetched, whatever a prompt or a file name holds.

    Args:
        loads_scripts: let the page's own script load further ones, which lie beside the page.
    """
    style, script = _static("page.css"), _static(f"{name}.js")
    policy = (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src '{_digest(style)}'; script-src '{_digest(script)}'"
    ) + " 'strict-dynamic'" * loads_scripts
    template = _environment().get_template(f"{name}.html")
    # Both are files of this package, not input: escaped, they would not work.
    return template.render(policy=policy, style=Markup(style), script=Markup(script), **content)


def data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def colour_hex(colour: Sequence[int] | None) -> str:
    """Red, green, blue, 0-255, as SVG and CSS write it; grey of a report that states none."""
    return to_hex([channel / 255 for channel in colour or (128, 128, 128)])


def link(path: str) -> str:
    """A file below the page as a relative link: no scheme, no way up, everything odd percent-encoded."""
    parts = [part for part in path.split("/") if part not in {"", ".", ".."}]
    return "./" + "/".join(quote(part, safe="", errors="replace") for part in parts)


def times(edges: Sequence[float]) -> str:
    """Lengths of edges: '192 \u00d7 192 \u00d7 64'."""
    return " \u00d7 ".join(f"{edge:.3g}" if isinstance(edge, float) else str(edge) for edge in edges)


def count_text(entry: Mapping[str, Any]) -> str:
    """How many there are, to follow a structure's size: ', 318 cells, 1,270 per mm²'; empty where none are counted."""
    count = entry.get("count")
    if not isinstance(count, int):
        return ""
    is_cells = "median_area_px" in entry or "median_area_um2" in entry
    text = f", {count:,} {'cells' if is_cells else 'pieces'}"
    for key, of in (("per_mm2", "per mm²"), ("per_mm2_tissue", "per mm² of tissue")):
        if is_cells and entry.get(key) is not None:
            text += f", {entry[key]:,.0f} {of}"
    return text


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        colour=colour_hex,
        times=times,
        count=count_text,
        volume=volume_text,
        link=link,
    )
    return environment


@cache
def _static(name: str) -> str:
    return (STATIC / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
