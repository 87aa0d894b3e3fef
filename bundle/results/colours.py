"""One colour a structure, the same in every preview and page."""

from __future__ import annotations

import colorsys
import hashlib

RGB = tuple[float, float, float]

# The colours of anatomical atlases, pulled apart where neighbours would be hard to tell from each other.
_KNOWN = {
    "aorta": "#ff3b3b",
    "gallbladder": "#7bd14b",
    "left kidney": "#ffb347",
    "right kidney": "#f07818",
    "kidney": "#ff9126",
    "liver": "#d65a45",
    "pancreas": "#f7d154",
    "spleen": "#a97bdc",
    "stomach": "#f29ac0",
    "lung": "#5ec2f0",
    "left lung": "#5ec2f0",
    "right lung": "#3fa0e0",
    "covid-19 infection": "#ff5d73",
    "infection": "#ff5d73",
    "nucleus": "#21e0c3",
}
_SINGULAR = {"nuclei": "nucleus", "lungs": "lung", "kidneys": "kidney"}


def structure_key(name: str) -> str:
    """A structure's name as tables have it: lower case, single spaces, the singular."""
    key = " ".join(name.lower().replace("_", " ").split())
    return _SINGULAR.get(key, key)


def structure_colour(name: str) -> RGB:
    """The colour of a structure: red, green, blue in [0, 1]; a name not in the table gets a fixed one."""
    key = structure_key(name)
    known = _KNOWN.get(key)
    if known is not None:
        return int(known[1:3], 16) / 255, int(known[3:5], 16) / 255, int(known[5:7], 16) / 255
    digest = hashlib.sha256(key.encode("utf-8", "replace")).digest()
    return colorsys.hsv_to_rgb(digest[0] / 256, 0.55 + digest[1] / 1024, 0.95)
