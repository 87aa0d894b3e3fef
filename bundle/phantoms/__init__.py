"""Synthetic studies with known ground truth: a CT torso, a chest radiograph and an H&E tile.

No patient data lies in the repository, so the demonstration, the quick tests and part of the training
data are drawn here from a seed. Anatomy is laid out in millimetres (CT) or in fractions of the image,
every size, position, contrast and noise level varies with the seed, and the same seed gives the same
bytes. The studies look like the real thing to a network and to a reader's first glance; they are no
model of disease and say nothing about clinical performance.
"""

from bundle.phantoms.ct import ct_phantom
from bundle.phantoms.histology import histology_phantom
from bundle.phantoms.phantom import CT_LABELS, HISTOLOGY_LABELS, XRAY_LABELS, Phantom
from bundle.phantoms.sentences import histology_sentence, infection_sentence
from bundle.phantoms.writing import write_phantoms
from bundle.phantoms.xray import xray_phantom

__all__ = [
    "CT_LABELS",
    "HISTOLOGY_LABELS",
    "XRAY_LABELS",
    "Phantom",
    "ct_phantom",
    "histology_phantom",
    "histology_sentence",
    "infection_sentence",
    "write_phantoms",
    "xray_phantom",
]
