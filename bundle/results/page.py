"""The run as one self-contained page: a row a case, failures first, nothing loaded from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

from bundle.atomic import write_atomically
from bundle.results.colours import structure_colour
from bundle.results.page_style import SCRIPT, STYLE
from bundle.results.preview import PANEL_KEY, volume_text
from bundle.results.report import RESEARCH_USE_ONLY

MAX_THUMBNAILS = 200
_THUMBNAIL_EDGE = 320
_MAX_PROMPT = 400
_MAX_STRUCTURES = 24
_MAX_WARNINGS = 5
_HEADER_KEYS = ("command", "started", "seed", "steps", "members", "device", "weights_sha256")
_COLUMNS = ("", "Case", "Prompt", "Structures", "Uncertainty", "Notes", "Time", "Files")


def write_index(output_dir: Path, run: Mapping[str, Any]) -> Path:
    """Write `output_dir`/index.html.

    Each case's details come from its report.json and preview.png, where they exist; only the first
    `MAX_THUMBNAILS` previews are embedded, so that a page of 1,000 cases stays a few megabytes.

    Args:
        output_dir: the run's folder.
        run: what run.json holds: "cases" (each "id", "input", "status" 'done' or 'failed', "error",
            "files" relative to `output_dir`, "seconds"), "versions", "weights_sha256", "seed", "steps",
            "members", "command".

    Raises:
        OSError: naming the page, when it cannot be written.
    """
    cases = sorted(run.get("cases", []), key=lambda case: case.get("status") != "failed")
    rows, thumbnails = [], 0
    for case in cases:
        folder = _folder(output_dir, case)
        thumbnail = _thumbnail(folder) if folder and thumbnails < MAX_THUMBNAILS else None
        thumbnails += thumbnail is not None
        rows.append(_row(case, _report(folder), thumbnail))
    path = output_dir / "index.html"
    with write_atomically(path) as temporary:
        temporary.write_text(_document(run, cases, rows), encoding="utf-8", errors="replace")
    return path


def _document(run: Mapping[str, Any], cases: Sequence[Mapping[str, Any]], rows: list[str]) -> str:
    policy = (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src 'sha256-{_digest(STYLE)}'; script-src 'sha256-{_digest(SCRIPT)}'"
    )
    failed = sum(case.get("status") == "failed" for case in cases)
    note = ""
    if len(cases) > MAX_THUMBNAILS:
        note = (
            f"<p>Pictures are shown for the first {MAX_THUMBNAILS} cases; each case's files have its own.</p>"
        )
    head = "".join(f"<th scope='col'>{title}</th>" for title in _COLUMNS)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Segmentation results</title>
<style>{STYLE}</style>
</head>
<body>
<header>
<h1>Segmentation results</h1>
<p class="counts">{_counts(len(cases), failed)}</p>
<p class="notice">{escape(RESEARCH_USE_ONLY)}</p>
<details><summary>Settings and versions</summary><dl>{_settings(run)}</dl></details>
{note}
<form class="filter" hidden>
<input type="search" id="text" placeholder="Filter by case, prompt, structure or warning" aria-label="Filter">
<select id="status" aria-label="Status"><option value="">All cases</option><option value="done">Done</option>
<option value="failed">Failed</option><option value="warning">With warnings</option>
<option value="empty">Nothing found</option></select>
<output id="shown"></output>
</form>
</header>
<main><table>
<thead><tr>{head}</tr></thead>
<tbody>
{"".join(rows)}
</tbody>
</table></main>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _counts(total: int, failed: int) -> str:
    cases = "1 case" if total == 1 else f"{total:,} cases"
    failures = f", <strong class='failed'>{failed:,} failed</strong>" if failed else ""
    return f"{cases}: {total - failed:,} done{failures}"


def _settings(run: Mapping[str, Any]) -> str:
    facts = [(key.replace("_", " "), run[key]) for key in _HEADER_KEYS if run.get(key) is not None]
    facts += [(f"version of {name}", version) for name, version in dict(run.get("versions") or {}).items()]
    return "".join(f"<dt>{escape(str(name))}</dt><dd>{escape(_setting(value))}</dd>" for name, value in facts)


def _setting(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _folder(output_dir: Path, case: Mapping[str, Any]) -> Path | None:
    """The case's folder; None for a failed case, whose folder could only be an earlier run's."""
    case_id = str(case.get("id", ""))
    if case.get("status") == "failed" or Path(case_id).name != case_id or not case_id:
        return None
    return output_dir / case_id


def _report(folder: Path | None) -> dict[str, Any]:
    """The case's report; empty where there is none, since a page with a gap is better than no page."""
    try:
        report = json.loads((folder / "report.json").read_text(encoding="utf-8")) if folder else {}
    except (OSError, ValueError):
        return {}
    return report if isinstance(report, dict) else {}


def _thumbnail(folder: Path) -> str | None:
    """The first mask panel of the preview as a JPEG data URI; None where there is no readable preview."""
    try:
        with Image.open(folder / "preview.png") as preview:
            box = preview.info.get(PANEL_KEY)
            picture = preview.convert("RGB")
        if box is not None:
            left, top, right, bottom = (int(edge) for edge in box.split(","))
            picture = picture.crop((left, top, right, bottom))
        picture.thumbnail((_THUMBNAIL_EDGE, _THUMBNAIL_EDGE))
        buffer = io.BytesIO()
        picture.save(buffer, format="JPEG", quality=80, optimize=True)
    except (OSError, ValueError):
        return None
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _row(case: Mapping[str, Any], report: Mapping[str, Any], thumbnail: str | None) -> str:
    failed = case.get("status") == "failed"
    warnings = [str(warning) for warning in report.get("warnings") or []]
    marks = ["failed" if failed else "done"]
    marks += ["warning"] * bool(warnings) + ["empty"] * (report.get("found") is False)
    cells = (
        _picture_cell(case, thumbnail),
        _case_cell(case, report),
        _prompt_cell(str(report.get("prompt") or "")) if report else "",
        _structures_cell(report),
        _uncertainty_cell(report),
        _notes_cell(case, warnings),
        _seconds(case.get("seconds")),
        _links(case.get("files") or []),
    )
    body = "".join(
        f"<td data-title='{title}'>{cell}</td>" for title, cell in zip(_COLUMNS, cells, strict=True)
    )
    return f"<tr data-marks='{' '.join(marks)}'>{body}</tr>\n"


def _picture_cell(case: Mapping[str, Any], thumbnail: str | None) -> str:
    if thumbnail is None:
        return ""
    name = escape(str(case.get("id")), quote=True)
    target = f"./{quote(str(case.get('id')), safe='')}/preview.png"
    return f"<a href='{target}'><img src='{thumbnail}' alt='Mask of {name}' loading='lazy'></a>"


def _case_cell(case: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    failed = case.get("status") == "failed"
    badge = "<span class='badge failed'>failed</span>" if failed else "<span class='badge done'>done</span>"
    shape = " x ".join(str(edge) for edge in report.get("shape") or [])
    facts = ", ".join(fact for fact in (str(report.get("modality") or ""), shape) if fact)
    source = escape(str(case.get("input") or ""), quote=True)
    return (
        f"<strong title='{source}'>{escape(str(case.get('id')))}</strong> {badge}"
        f"<br><span class='dim'>{escape(facts)}</span>"
    )


def _prompt_cell(prompt: str) -> str:
    if not prompt.strip():
        return "<span class='dim'>none</span>"
    if len(prompt) <= _MAX_PROMPT:
        return escape(prompt)
    left_out = f"{len(prompt) - _MAX_PROMPT:,} characters more in the report"
    return f"{escape(prompt[:_MAX_PROMPT])}\u2026 <span class='dim'>({left_out})</span>"


def _structures_cell(report: Mapping[str, Any]) -> str:
    labels = report.get("labels") or {}
    found = [(name, entry) for name, entry in labels.items() if entry.get("found")]
    missing = [name for name, entry in labels.items() if not entry.get("found")]
    items = [
        f"<li>{_swatch(name)}{escape(name)} <b>{_size(entry, report)}</b></li>"
        for name, entry in found[:_MAX_STRUCTURES]
    ]
    if len(found) > _MAX_STRUCTURES:
        items.append(f"<li class='dim'>and {len(found) - _MAX_STRUCTURES} more</li>")
    if report.get("found") is False:
        items.append("<li class='none'>No structure found</li>")
    if missing:
        names = ", ".join(missing[:_MAX_STRUCTURES]) + ("\u2026" if len(missing) > _MAX_STRUCTURES else "")
        items.append(f"<li class='dim'>not found: {escape(names)}</li>")
    return f"<ul>{''.join(items)}</ul>" if items else ""


def _swatch(name: str) -> str:
    """As SVG: its fill is an attribute, which the page's policy allows where an inline style is not."""
    colour = "".join(f"{round(channel * 255):02x}" for channel in structure_colour(name))
    square = f"<rect width='10' height='10' rx='2' fill='#{colour}'/>"
    return f"<svg width='10' height='10' aria-hidden='true'>{square}</svg>"


def _size(entry: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    if entry.get("volume_ml") is not None:
        return volume_text(float(entry["volume_ml"]))
    shape = report.get("shape") or []
    area = int(entry.get("area_px") or 0)
    share = f" ({100 * area / (shape[0] * shape[1]):.1f} %)" if len(shape) == 2 and all(shape) else ""
    return f"{area:,} px{share}"


def _uncertainty_cell(report: Mapping[str, Any]) -> str:
    inside, whole = report.get("mean_uncertainty_foreground"), report.get("mean_uncertainty")
    lines = [
        f"{value:.3f} <span class='dim'>{place}</span>"
        for value, place in ((inside, "in the mask"), (whole, "overall"))
        if isinstance(value, int | float)
    ]
    return "<br>".join(lines)


def _notes_cell(case: Mapping[str, Any], warnings: list[str]) -> str:
    items = []
    if case.get("status") == "failed":
        items.append(f"<li class='failed'>{escape(str(case.get('error') or 'no reason given'))}</li>")
    items += [f"<li class='warning'>{escape(warning)}</li>" for warning in warnings[:_MAX_WARNINGS]]
    if len(warnings) > _MAX_WARNINGS:
        items.append(f"<li class='dim'>and {len(warnings) - _MAX_WARNINGS} more in the report</li>")
    return f"<ul>{''.join(items)}</ul>" if items else ""


def _seconds(seconds: Any) -> str:
    return f"{seconds:,.1f} s" if isinstance(seconds, int | float) else ""


def _links(files: Sequence[str]) -> str:
    """Relative links; what could be read as a scheme or leave the page's folder is percent-encoded."""
    links = []
    for file in files:
        parts = [part for part in str(file).split("/") if part not in {"", ".", ".."}]
        if parts:
            target = "/".join(quote(part, safe="", errors="replace") for part in parts)
            links.append(f"<li><a href='./{target}'>{escape(parts[-1])}</a></li>")
    return f"<ul class='files'>{''.join(links)}</ul>" if links else ""
