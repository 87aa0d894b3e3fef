"""Text-prior diffusion segmentation of clinical images as one MONAI bundle."""

__version__ = "0.10.0"
