"""Kinds of input that users of other tools reported: the right image, a warning that names what is wrong, or one
sentence. What is right for each row was decided before it was run."""

from __future__ import annotations

import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageFilter
from pydicom.dataset import Dataset

from bundle.cases import CaseError, collect, read_case
from bundle.cases.case import Case
from bundle.cases.hounsfield import shift_from_hounsfield
from bundle.phantoms import ct_phantom, histology_phantom, xray_phantom
from tests.support.dicom_files import Ct, film, save

FILM = xray_phantom(3, size=256).image
TISSUE = histology_phantom(1, size=256).image
FILM = np.asarray(FILM if FILM.ndim == 2 else FILM[..., 0]).astype(np.uint8)
HU = np.random.default_rng(5).integers(-1000, 400, (7, 9, 11)).astype(np.int16)


def one_case(folder: Path) -> Case:
    found = collect(folder)
    assert not found.failures and len(found.references) == 1
    return read_case(found.references[0])


def refusal(folder: Path) -> str:
    with pytest.raises(CaseError) as caught:
        one_case(folder)
    message = str(caught.value)
    assert message.count("; ") == 1 and message.endswith(".") and len(message.splitlines()) == 1
    return message


# --- pictures: X-ray or H&E ----------------------------------------------------------------------------------


def _tinted(*part: float) -> np.ndarray:
    return np.stack([(FILM * one).astype(np.uint8) for one in part], axis=-1)


def _marked(colour: tuple[int, int, int], side: int = 40) -> np.ndarray:
    rgb = _tinted(1, 1, 1)
    rgb[8 : 8 + side, 8 : 8 + side] = colour
    return rgb


def _noisy_jpeg() -> np.ndarray:
    stream = BytesIO()
    Image.fromarray(_tinted(0.88, 0.94, 1)).save(stream, "JPEG", quality=20)
    return np.asarray(Image.open(stream))


def _one_pixel() -> np.ndarray:
    rgb = _tinted(1, 1, 1)
    rgb[100, 100, 2] ^= 1
    return rgb


COLOURED_FILMS = {
    "one pixel off grey": _one_pixel(),
    "red side marker": _marked((255, 0, 0)),
    "yellow side marker": _marked((255, 255, 0)),
    "blue film base": _tinted(0.88, 0.94, 1),
    "deep blue film base": _tinted(0.6, 0.75, 1),
    "purple film base": _tinted(0.85, 0.8, 1),
    "yellowed film": _tinted(1, 0.9, 0.7),
    "JPEG noise in colour": _noisy_jpeg(),
}


@pytest.mark.parametrize("name", COLOURED_FILMS)
def test_a_film_in_colour_is_an_xray(tmp_path: Path, name: str) -> None:
    Image.fromarray(COLOURED_FILMS[name]).save(tmp_path / "film.png")
    case = one_case(tmp_path)
    assert case.modality == "X-ray" and case.array.shape == (1, 256, 256)
    assert "luminance" in case.warnings[0]
    inner = case.array[0][60:, 60:], FILM[60:, 60:]
    assert np.corrcoef(inner[0].ravel(), inner[1].ravel())[0, 1] > 0.99


@pytest.mark.parametrize("seed", range(4))
def test_tissue_stays_tissue(tmp_path: Path, seed: int) -> None:
    tissue = histology_phantom(seed, size=256).image
    pale = (255 - (255 - tissue.astype(float)) * 0.3).astype(np.uint8)
    mostly_glass = np.full_like(tissue, 244)
    mostly_glass[:40, :60] = tissue[:40, :60]
    for name, image in (("whole", tissue), ("pale", pale), ("glass", mostly_glass)):
        (tmp_path / name).mkdir()
        Image.fromarray(image).save(tmp_path / name / "a.png")
        assert one_case(tmp_path / name).modality == "H&E", name


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("kind", ["tif", "tif that states it", "png"])
def test_white_is_what_the_camera_fills(tmp_path: Path, bits: int, kind: str) -> None:
    values = TISSUE.astype(np.uint16) << (bits - 8)
    if kind == "png":
        imagecodecs = pytest.importorskip("imagecodecs")
        (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(values))
    else:
        most = [(281, "H", 3, ((1 << bits) - 1,) * 3, True)] if "states" in kind else []
        tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", extratags=most)
    case = one_case(tmp_path)
    assert case.full_scale == (1 << bits) - 1 and case.modality == "H&E"
    assert np.array_equal(case.array, values.transpose(2, 0, 1))
    assert f"{bits} are filled" in case.warnings[0]


def test_full_16_bits_are_full(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", TISSUE.astype(np.uint16) * 257, photometric="rgb")
    case = one_case(tmp_path)
    assert case.full_scale == 65535 and case.warnings == []


def test_planes_behind_one_another_are_refused(tmp_path: Path) -> None:
    for name, described in (("imagej", "ImageJ=1.53t\nimages=3\nslices=3\nloop=false\n"), ("named", None)):
        path = tmp_path / name / "stack.tif"
        path.parent.mkdir()
        if described is None:
            tifffile.imwrite(path, np.stack([FILM] * 3), imagej=True)
        else:
            tifffile.imwrite(path, FILM, photometric="minisblack", description=described, metadata=None)
            with path.open("ab") as stream:
                stream.write(FILM[::-1].tobytes() + FILM.T.tobytes())
        assert "holds 3 p" in refusal(path.parent)


def test_white_zero_of_wide_grey(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", 255.0 - FILM.astype(np.float32), photometric="miniswhite")
    case = one_case(tmp_path)
    assert np.corrcoef(case.array.ravel(), FILM.ravel())[0, 1] > 0.999


def test_floats(tmp_path: Path) -> None:
    (tmp_path / "grey").mkdir()
    tifffile.imwrite(tmp_path / "grey" / "a.tif", FILM / np.float32(255))
    assert one_case(tmp_path / "grey").full_scale == 1.0
    for name, values, told in (
        ("colour", (TISSUE / 255).astype(np.float32), "floating-point values of 32 bits in 3 channels"),
        ("double", FILM / 255.0, "floating-point values of 64 bits in 1 channel"),
        ("half", FILM.astype(np.float16), "floating-point values of 16 bits in 1 channel"),
    ):
        (tmp_path / name).mkdir()
        photometric = "rgb" if values.ndim == 3 else "minisblack"
        tifffile.imwrite(tmp_path / name / "a.tif", values, photometric=photometric)
        assert told in refusal(tmp_path / name), name


# --- volumes: lengths, directions, bytes ---------------------------------------------------------------------

AFFINE = np.array([[-2.0, 0, 0, 90], [0, 1.5, 0, -80], [0, 0, 3.0, 20], [0, 0, 0, 1]])


def _nifti(path: Path, unit: str, factor: float) -> None:
    image = nibabel.Nifti1Image(HU, np.diag([factor, factor, factor, 1]) @ AFFINE)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, path)


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1), ("meter", 0.001), ("micron", 1000), ("unknown", 1)])
def test_lengths_of_nifti_become_mm(tmp_path: Path, unit: str, factor: float) -> None:
    _nifti(tmp_path / "a.nii.gz", unit, factor)
    case = one_case(tmp_path)
    assert case.affine is not None and np.allclose(case.affine, AFFINE, atol=1e-4)
    assert np.array_equal(case.array[0], HU)


@pytest.mark.parametrize("factor", [0.001, 1000])
def test_lengths_in_a_unit_that_is_not_stated_are_refused(tmp_path: Path, factor: float) -> None:
    _nifti(tmp_path / "a.nii.gz", "mm", factor)
    assert "mm long by its header" in refusal(tmp_path)


def test_voxels_begin_behind_the_header_whatever_it_says(tmp_path: Path) -> None:
    content = bytearray(nibabel.Nifti1Image(HU, AFFINE).to_bytes())
    struct.pack_into("<f", content, 108, 0.0)
    (tmp_path / "a.nii").write_bytes(content)
    assert np.array_equal(one_case(tmp_path).array[0], HU)


@pytest.mark.parametrize("dimensions", [3, 4, 5])
@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_a_single_frame_keeps_its_direction(tmp_path: Path, suffix: str, dimensions: int) -> None:
    path = tmp_path / f"a{suffix}"
    lps = np.diag([-1.0, -1.0, 1.0]) @ AFFINE[:3, :3]
    extra = dimensions - 3
    sizes = " ".join(map(str, [*HU.shape, *[1] * extra]))
    if suffix == ".mha":
        matrix = np.eye(dimensions)
        matrix[:3, :3] = (lps / np.abs(lps).sum(axis=0)).T
        offset = [*(np.diag([-1.0, -1.0, 1.0]) @ AFFINE[:3, 3]), *[0.0] * extra]
        fields = {
            "ObjectType": "Image",
            "NDims": dimensions,
            "BinaryData": "True",
            "TransformMatrix": " ".join(map(str, matrix.ravel())),
            "Offset": " ".join(map(str, offset)),
            "ElementSpacing": " ".join(map(str, [2.0, 1.5, 3.0, *[1] * extra])),
            "DimSize": sizes,
            "ElementType": "MET_SHORT",
            "ElementDataFile": "LOCAL",
        }
        header = "".join(f"{key} = {value}\n" for key, value in fields.items())
    else:
        if dimensions > 3:
            pytest.skip("NRRD has no direction for axes that are not of space")
        vectors = " ".join(f"({','.join(map(str, column))})" for column in lps.T)
        header = (
            f"NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: {sizes}\n"
            f"space directions: {vectors}\nendian: little\nencoding: raw\nspace origin: (-90,80,20)\n\n"
        )
    path.write_bytes(header.encode() + HU.astype("<i2").tobytes(order="F"))
    case = one_case(tmp_path)
    assert case.affine is not None and np.allclose(case.affine, AFFINE) and np.array_equal(case.array[0], HU)


@pytest.mark.parametrize(("unit", "known"), [("m", True), ("mm", True), ("um", True), ("parsec", False)])
def test_lengths_of_nrrd_become_mm(tmp_path: Path, unit: str, known: bool) -> None:
    factor = {"m": 0.001, "um": 1000.0}.get(unit, 1.0)
    vectors = " ".join(f"({','.join(map(str, row * factor))})" for row in np.diag([2.0, 1.5, 3.0]))
    header = (
        "NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\n"
        f"sizes: {' '.join(map(str, HU.shape))}\nspace directions: {vectors}\nendian: little\n"
        f'encoding: raw\nspace units: "{unit}" "{unit}" "{unit}"\nspace origin: (0,0,0)\n\n'
    )
    (tmp_path / "a.nrrd").write_bytes(header.encode() + HU.astype("<i2").tobytes(order="F"))
    if known:
        assert one_case(tmp_path).spacing == pytest.approx((2.0, 1.5, 3.0))
    else:
        assert "units that are not known" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("space", "x", "y", "known"),
    [
        ("left-posterior-superior", -2.0, -1.5, True),
        ("right-anterior-superior", 2.0, 1.5, True),
        ("left-anterior-superior", -2.0, 1.5, True),
        ("scanner-xyz", -2.0, -1.5, False),
    ],
)
def test_a_space_that_is_not_the_patients_is_said(
    tmp_path: Path, space: str, x: float, y: float, known: bool
) -> None:
    header = (
        f"NRRD0004\ntype: short\ndimension: 4\nspace: {space}\nsizes: 7 9 11 1\nendian: little\n"
        "kinds: domain domain domain list\n"
        "space directions: (2,0,0) (0,1.5,0) (0,0,3) none\nencoding: raw\nspace origin: (0,0,0)\n\n"
    )
    (tmp_path / "a.nrrd").write_bytes(header.encode() + HU.astype("<i2").tobytes(order="F"))
    case = one_case(tmp_path)
    assert case.affine is not None and np.allclose(np.diag(case.affine), (x, y, 3, 1))
    assert any("nominal" in text for text in case.warnings) != known


def test_a_per_cent_sign_is_named(tmp_path: Path) -> None:
    (tmp_path / "dose 50%.raw").write_bytes(bytes(128))
    (tmp_path / "a.mhd").write_text(
        "ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementType = MET_SHORT\nElementDataFile = dose 50%.raw\n"
    )
    assert "per cent sign" in refusal(tmp_path)


# --- CT numbers ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def torso() -> np.ndarray:
    return np.asarray(ct_phantom(2).image).astype(np.int16)


@pytest.mark.parametrize("shift", [1024, 1000, -1024, -1000, 8192])
@pytest.mark.parametrize("padding", [None, -2000])
def test_shifted_hounsfield_units_are_named(
    tmp_path: Path, torso: np.ndarray, shift: int, padding: int | None
) -> None:
    values = torso + np.int16(shift)
    if padding is not None:
        values[torso < -950] = padding
    nibabel.save(nibabel.Nifti1Image(values, np.diag([3.0, 3, 3, 1])), tmp_path / "a.nii.gz")
    case = one_case(tmp_path)
    told = " ".join(case.warnings)
    assert any(f"about {one} {'above' if shift > 0 else 'below'}" in told for one in (abs(shift), 1000, 1024))
    assert np.array_equal(case.array[0], values), "never repaired in silence"


def test_hounsfield_units_as_they_are(torso: np.ndarray) -> None:
    middle = tuple(slice(length // 4, length // 2) for length in torso.shape)
    clipped = np.clip(torso, -125, 275)
    for values in (torso, torso[middle], clipped, np.maximum(torso, -900), HU, np.full((8, 8, 8), -1000)):
        assert shift_from_hounsfield(values) is None


# --- films: the grey scale turned round ----------------------------------------------------------------------

DEEP = FILM.astype(np.uint16) * 16  # of 12 bits
TURNED = (4095 - DEEP).astype(np.uint16)


def _lut(sequence: str, table: np.ndarray, bits: int = 12) -> dict[str, Any]:
    item = Dataset()
    item.add_new(0x00283002, "US", [len(table), 0, bits])
    item.add_new(0x00283006, "OW", table.astype("<u2").tobytes())
    return {sequence: [item]}


FALLING = np.arange(4095, -1, -1)
RESCALE = {"RescaleSlope": -1, "RescaleIntercept": 4095}
WINDOW = {"WindowCenter": 2048, "WindowWidth": 4096}
POLARITIES: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
    "as it is": (DEEP, {}),
    "falling rescale": (TURNED, RESCALE),
    "falling rescale and window": (TURNED, RESCALE | WINDOW),
    "falling modality LUT": (TURNED, _lut("ModalityLUTSequence", FALLING)),
    "falling modality LUT and window": (TURNED, _lut("ModalityLUTSequence", FALLING) | WINDOW),
    "falling modality LUT of 16 bits": (TURNED, _lut("ModalityLUTSequence", FALLING * 16, 16)),
    "falling VOI LUT": (TURNED, _lut("VOILUTSequence", FALLING)),
    "MONOCHROME1": (TURNED, {"PhotometricInterpretation": "MONOCHROME1"}),
    "MONOCHROME1 and window": (TURNED, {"PhotometricInterpretation": "MONOCHROME1"} | WINDOW),
    "MONOCHROME1 and falling rescale": (DEEP, {"PhotometricInterpretation": "MONOCHROME1"} | RESCALE),
    "window of 8 bits": (DEEP, {"WindowCenter": 128, "WindowWidth": 256}),
    "window of 10 bits": (DEEP, {"WindowCenter": 512, "WindowWidth": 1024}),
    "window of 16 bits": (DEEP, {"WindowCenter": 32768, "WindowWidth": 65536}),
}


@pytest.mark.parametrize("name", POLARITIES)
def test_bone_is_bright(tmp_path: Path, name: str) -> None:
    values, attributes = POLARITIES[name]
    save(film(values, **{"BitsStored": 12, "HighBit": 11} | attributes), tmp_path / "a.dcm")
    case = one_case(tmp_path)
    assert np.corrcoef(case.array.ravel(), DEEP.ravel())[0, 1] > 0.999
    told = "window" in name and name[10:] in ("8 bits", "10 bits")
    assert any("window" in text for text in case.warnings) == told


def test_float_pixels_are_named(tmp_path: Path) -> None:
    dataset = film(FILM)
    del dataset.PixelData
    dataset.FloatPixelData, dataset.BitsAllocated = FILM.astype("<f4").tobytes(), 32
    save(dataset, tmp_path / "a.dcm")
    assert "floating-point" in refusal(tmp_path)


# --- CT series: acquisitions, enhanced images ----------------------------------------------------------------


def _interleaved(change: Callable[[Any, int, int], None]) -> Ct:
    """Every second slice taken in a second pass."""
    ct = Ct()
    for index, dataset in enumerate(ct.slices):
        second = index % 2
        dataset.InstanceNumber = index // 2 + 1 + 6 * second
        change(dataset, second, index // 2)
    return ct


def _number(dataset: Any, second: int, _: int) -> None:
    dataset.AcquisitionNumber = 1 + second


def _contrast(dataset: Any, second: int, index: int) -> None:
    dataset.ContrastBolusAgent = "Iohexol" if second else ""
    dataset.InstanceNumber = 2 * index + second + 1


def _time(dataset: Any, second: int, index: int) -> None:
    dataset.AcquisitionTime = f"1012{10 * second + index:02d}"
    del dataset.InstanceNumber


def _energy(dataset: Any, second: int, index: int) -> None:
    dataset.KVP = 140 if second else 80
    del dataset.InstanceNumber


def _nothing(dataset: Any, second: int, index: int) -> None:
    """The number alone tells."""


@pytest.mark.parametrize("change", [_number, _contrast, _time, _energy, _nothing])
def test_acquisitions_between_one_another_are_refused(tmp_path: Path, change: Any) -> None:
    _interleaved(change).write(tmp_path / "s")
    assert "several acquisitions" in refusal(tmp_path / "s")


def test_acquisitions_beside_one_another_are_one_volume(tmp_path: Path) -> None:
    ct = Ct()
    for index, dataset in enumerate(ct.slices):
        dataset.AcquisitionNumber = 1 + index // 6
        dataset.AcquisitionTime = f"1012{index:02d}"
        dataset.InstanceNumber = 12 - index
    ct.write(tmp_path / "s")
    assert np.array_equal(one_case(tmp_path / "s").array[0], ct.truth()[0])


def _enhanced(ct: Ct, slices: slice, **attributes: Any) -> Any:
    """Some slices as one enhanced file."""
    chosen = ct.slices[slices]
    dataset = ct.slice(0)
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    dataset.SOPInstanceUID = chosen[0].SOPInstanceUID
    shared, per_frame = Dataset(), []
    for name, keywords in (
        ("PlaneOrientationSequence", ["ImageOrientationPatient"]),
        ("PixelMeasuresSequence", ["PixelSpacing", "SliceThickness"]),
        ("PixelValueTransformationSequence", ["RescaleSlope", "RescaleIntercept"]),
    ):
        group = Dataset()
        for keyword in keywords:
            setattr(group, keyword, dataset[keyword].value)
            del dataset[keyword]
        setattr(shared, name, [group])
    for one in chosen:
        frame, place = Dataset(), Dataset()
        place.ImagePositionPatient = one.ImagePositionPatient
        frame.PlanePositionSequence = [place]
        per_frame.append(frame)
    del dataset.ImagePositionPatient
    dataset.SharedFunctionalGroupsSequence, dataset.PerFrameFunctionalGroupsSequence = [shared], per_frame
    dataset.NumberOfFrames = len(chosen)
    dataset.PixelData = b"".join(one.PixelData for one in chosen)
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def test_enhanced_files_of_one_frame_are_a_volume(tmp_path: Path) -> None:
    ct = Ct()
    for index in range(12):
        save(_enhanced(ct, slice(index, index + 1)), tmp_path / f"{index}.dcm")
    case = one_case(tmp_path)
    assert np.array_equal(case.array[0], ct.truth()[0])
    assert case.affine is not None and np.allclose(case.affine, ct.truth()[1])
    assert len(case.header.files) == 12 and case.header.frames == (1,) * 12


@pytest.mark.parametrize("cut", [5, 11])
def test_a_concatenation_is_one_volume(tmp_path: Path, cut: int) -> None:
    ct = Ct()
    for number, part in enumerate((slice(0, cut), slice(cut, 12))):
        dataset = _enhanced(ct, part, ConcatenationUID="1.2.3.4", InConcatenationNumber=number + 1)
        dataset.InConcatenationTotalNumber, dataset.ConcatenationFrameOffsetNumber = 2, part.start
        save(dataset, tmp_path / f"{number}.dcm")
    assert np.array_equal(one_case(tmp_path).array[0], ct.truth()[0])
    (tmp_path / "1.dcm").unlink()
    assert "1 of the 2 parts of a concatenated image" in refusal(tmp_path)


# --- slides --------------------------------------------------------------------------------------------------


def test_planes_and_photographs_of_slides(tmp_path: Path) -> None:
    pytest.importorskip("openslide")
    pytest.importorskip("imagecodecs")
    from bundle.cases.slides import is_slide, open_slide

    image = np.tile(TISSUE, (3, 3, 1))
    size = {
        f"PhysicalSize{axis}{what}": value for axis in "XY" for what, value in (("", 0.25), ("Unit", "µm"))
    }
    options: Any = {"tile": (128, 128), "photometric": "rgb"}
    blurred = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(9)))
    planes = np.stack([blurred, image, image])
    with tifffile.TiffWriter(tmp_path / "planes.ome.tif") as writer:
        writer.write(planes, subifds=1, metadata={**size, "axes": "ZYXS"}, **options)
        writer.write(planes[:, ::2, ::2], subfiletype=1, metadata=None, **options)
    with tifffile.TiffWriter(tmp_path / "macro.ome.tif") as writer:
        coarse = {**size, "PhysicalSizeX": 2, "PhysicalSizeY": 2, "axes": "YXS", "Name": "macro"}
        writer.write(image[::2, ::2], metadata=coarse, **options)
        writer.write(image, subifds=1, metadata={**size, "axes": "YXS", "Name": "scan"}, **options)
        writer.write(image[::2, ::2], subfiletype=1, metadata=None, **options)
    with tifffile.TiffWriter(tmp_path / "two.ome.tif") as writer:
        for name in ("one", "two"):
            writer.write(image, metadata={**size, "axes": "YXS", "Name": name}, **options)
    with pytest.raises(CaseError, match="3 focal planes"):
        open_slide(tmp_path / "planes.ome.tif")
    with pytest.raises(CaseError, match="several scans"):
        open_slide(tmp_path / "two.ome.tif")
    assert is_slide(tmp_path / "macro.ome.tif")
    with open_slide(tmp_path / "macro.ome.tif") as slide:
        assert slide.pyramid.sizes == [(768, 768), (384, 384)] and slide.mpp == (0.25, 0.25)
        assert np.array_equal(slide.read(slide.grid(0.25), 64, 64, 128, 128), image[64:192, 64:192])
        assert "largest" in slide.pyramid.notes[0]
