"""DICOM whole-slide images for tests: a file a level, as scanners and converters write them."""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit, generate_uid

from tests.support.dicom_files import new_dataset, save

WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"


def slide_level(
    image: NDArray[Any],
    mpp: float,
    series: str,
    study: str,
    *,
    flavor: str = "VOLUME",
    resampled: bool = False,
    syntax: str = ExplicitVRLittleEndian,
    sparse: bool = False,
    absent: Collection[tuple[int, int]] = (),
    tile: int = 256,
) -> Any:
    """One instance, PS3.3 A.32.8.

    Args:
        image: (H, W, 3) uint8.
        flavor, resampled: values 3 and 4 of Image Type.
        sparse: TILED_SPARSE, with a position for each tile; else TILED_FULL.
        absent: (row, column) of tiles that were not scanned, of a sparse one.
    """
    height, width = image.shape[:2]
    dataset = new_dataset(WHOLE_SLIDE, study, series)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.Modality, dataset.ContainerIdentifier = "SM", "S-1"
    dataset.FrameOfReferenceUID = generate_uid(entropy_srcs=[series])
    dataset.ImageType = ["DERIVED", "PRIMARY", flavor, "RESAMPLED" if resampled else "NONE"]
    dataset.Rows = dataset.Columns = tile
    dataset.SamplesPerPixel, dataset.PlanarConfiguration, dataset.PixelRepresentation = 3, 0, 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PhotometricInterpretation = "YBR_FULL_422" if syntax == JPEGBaseline8Bit else "RGB"
    dataset.TotalPixelMatrixColumns, dataset.TotalPixelMatrixRows = width, height
    dataset.TotalPixelMatrixFocalPlanes = dataset.NumberOfOpticalPaths = 1
    dataset.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
    dataset.TotalPixelMatrixOriginSequence = [
        _item(XOffsetInSlideCoordinateSystem=20, YOffsetInSlideCoordinateSystem=40)
    ]
    measures = _item(PixelSpacing=[mpp / 1000, mpp / 1000], SliceThickness=0.001)
    dataset.SharedFunctionalGroupsSequence = [_item(PixelMeasuresSequence=[measures])]
    dataset.OpticalPathSequence = [_item(OpticalPathIdentifier="1")]
    dataset.DimensionOrganizationType = "TILED_SPARSE" if sparse else "TILED_FULL"
    tiles, positions = [], []
    for row, top in enumerate(range(0, height, tile)):
        for column, left in enumerate(range(0, width, tile)):
            if (row, column) in absent:
                continue
            tiles.append(Image.fromarray(image).crop((left, top, left + tile, top + tile)))
            place = _item(
                ColumnPositionInTotalImagePixelMatrix=left + 1, RowPositionInTotalImagePixelMatrix=top + 1
            )
            positions.append(_item(PlanePositionSlideSequence=[place]))
    if sparse:
        dataset.PerFrameFunctionalGroupsSequence = positions
    dataset.NumberOfFrames = len(tiles)
    _set_tiles(dataset, tiles, syntax)
    return dataset


def _item(**attributes: Any) -> Any:
    item = pydicom.Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item


def _set_tiles(dataset: Any, tiles: Sequence[Image.Image], syntax: str) -> None:
    if syntax == ExplicitVRLittleEndian:
        dataset.PixelData = b"".join(one.tobytes() for one in tiles)
    else:
        dataset.PixelData = encapsulate([encoded(one, syntax) for one in tiles])
        dataset["PixelData"].is_undefined_length = True
    dataset["PixelData"].VR = "OB"


def encoded(tile: Image.Image, syntax: str) -> bytes:
    """The frame of a tile."""
    stream = io.BytesIO()
    if syntax == JPEG2000Lossless:
        tile.save(stream, "JPEG2000", no_jp2=True, mct=0)
    else:
        tile.save(stream, "JPEG", quality=95, subsampling=0)
    return stream.getvalue()


def write_dicom_slide(folder: Path, levels: Sequence[NDArray[Any]], **options: Any) -> list[Any]:
    """A series of `levels`, the finest of 0.25 micrometres per pixel; returns the datasets.

    Args:
        options: of `slide_level`.
    """
    study, series = generate_uid(), generate_uid()
    datasets = []
    for number, image in enumerate(levels):
        mpp = 0.25 * levels[0].shape[1] / image.shape[1]
        datasets.append(slide_level(image, mpp, series, study, resampled=number > 0, **options))
        save(datasets[-1], folder / f"{number}")
    return datasets
