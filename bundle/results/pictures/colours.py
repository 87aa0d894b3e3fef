"""One colour a structure, the same in every preview and page."""

from __future__ import annotations

import colorsys
import hashlib

RGB = tuple[float, float, float]

# Chosen to stay apart, on dark images too, for eyes that lack red or green cones; tests/results/test_colours.py has the
# distances.
_KNOWN = {
    "aorta": "#fd5e7e",
    "gallbladder": "#14a988",
    "left kidney": "#e1a441",
    "right kidney": "#b87333",
    "kidney": "#e1a441",
    "liver": "#c33b94",
    "pancreas": "#fff27a",
    "spleen": "#8f7bff",
    "stomach": "#e6cdb0",
    "lung": "#4fc3ff",
    "left lung": "#4fc3ff",
    "right lung": "#2a86d8",
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
