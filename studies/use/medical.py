"""DICOM and NIfTI files -> grey axial slices as a radiologist sees them, where the readers are
installed.

Owns windows, polarity, orientation and which slices of a volume are taken. Knows nothing of models.
"""

from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np

from training.data import DataError
from training.data.preprocess import to_gray

CURE = "install its reader with `.venv/bin/pip install --constraint constraints.txt {}`"
BRIGHTEST = 99.9  # percentile of a volume that becomes white where the file names no window
SQUARE = 1.02  # how much longer one side of a pixel may be than the other
AXES = ("sagittal", "coronal", "axial")


def read_dicom(path: Path, which: str | int) -> dict[int | None, np.ndarray]:
    """The slices of a DICOM file, uint8 (h, w), by number; None where it holds a single one.

    Windowed as the file says (the first window), MONOCHROME1 turned round. Only axial slices, where
    the file says how they lie.
    """
    pydicom = _reader("pydicom", "DICOM")
    try:
        file = pydicom.dcmread(path)
    except pydicom.errors.InvalidDicomError as error:
        raise DataError("the file is not DICOM") from error
    if "PixelData" not in file:
        raise DataError("the DICOM file holds no image")
    _check_axial(file.get("ImageOrientationPatient"))
    n = int(file.get("NumberOfFrames") or 1)
    if n == 1:
        return {None: _dicom_frame(pydicom, file, 0)}
    return _that_show_something({i: _dicom_frame(pydicom, file, i) for i in _choose(n, which)})


def read_nifti(path: Path, which: str | int) -> dict[int | None, np.ndarray]:
    """Axial slices of a NIfTI volume, uint8 (h, w), by their number from the feet up.

    Patients look up and their right is on the left. Of several volumes the first; grey values are
    scaled over the whole volume.
    """
    nibabel = _reader("nibabel", "NIfTI")
    try:
        image = nibabel.as_closest_canonical(nibabel.load(path))
    except nibabel.filebasedimages.ImageFileError as error:
        raise DataError("the file is not NIfTI") from error
    values = np.asanyarray(image.dataobj)
    if values.dtype.kind not in "iuf" or values.ndim < 3:
        raise DataError(f"the volume must be grey and have 3 axes, got shape {values.shape}")
    volume = _scaled(values.reshape(*values.shape[:3], -1)[..., 0])
    width, height = image.header.get_zooms()[:2]
    chosen = _choose(volume.shape[2], which)
    return _that_show_something(
        {i: _square(volume[::-1, ::-1, i].T, width, height) for i in chosen}
    )


def _reader(name: str, of: str) -> ModuleType:
    """The package, imported when the first such file comes."""
    try:
        if name == "pydicom":
            import pydicom
            import pydicom.pixels

            return pydicom
        import nibabel

        return nibabel
    except ImportError as error:
        raise DataError(f"{of} is not read here: {CURE.format(name)}") from error


def _choose(n: int, which: str | int) -> Iterable[int]:
    """The numbers of the slices that are asked for."""
    if which == "middle":
        return [n // 2]
    if which == "all":
        return range(n)
    if which >= n:
        raise DataError(f"there is no slice {which}: the file's are 0 to {n - 1}")
    return [which]


def _that_show_something(slices: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    """The ends of a volume are empty; that is no fault of the file."""
    shown = {i: gray for i, gray in slices.items() if gray.min() < gray.max()}
    if not shown:
        raise DataError("the slices that are asked for hold one grey value and show no head")
    return shown


def _check_axial(orientation: Iterable[float] | None) -> None:
    if orientation is None:
        return
    row, column = np.array(list(orientation), dtype=float).reshape(2, 3)
    plane = AXES[int(np.argmax(np.abs(np.cross(row, column))))]
    if plane != "axial":
        raise DataError(f"the slice is {plane}, and models know axial ones")


def _dicom_frame(pydicom: ModuleType, file, number: int) -> np.ndarray:
    pixels = pydicom.pixels.pixel_array(file, index=number)
    if pixels.ndim == 3:
        return to_gray(pixels)
    values = pydicom.pixels.apply_modality_lut(pixels, file).astype(np.float32)
    if "WindowCenter" in file:
        values = pydicom.pixels.apply_windowing(values, file).astype(np.float32)
    else:
        values = _without_padding(values, pixels, file.get("PixelPaddingValue"))
    gray = _scaled(values)
    return 255 - gray if file.get("PhotometricInterpretation") == "MONOCHROME1" else gray


def _without_padding(values: np.ndarray, pixels: np.ndarray, padding: int | None) -> np.ndarray:
    """What lies outside the scanner's field as dark as the darkest inside."""
    outside = pixels == padding
    if padding is None or outside.all():
        return values
    return np.where(outside, values[~outside].min(), values)


def _scaled(values: np.ndarray) -> np.ndarray:
    """Any grey values as uint8; a few outliers do not make the rest dark."""
    values = values.astype(np.float32)
    finite = np.isfinite(values)
    if not finite.any():
        raise DataError("the image holds no finite number")
    low = values[finite].min()
    high = np.percentile(values[finite], BRIGHTEST)
    if high <= low:
        high = values[finite].max()
    values = np.where(finite, values, low)
    return np.clip((values - low) * (255 / max(high - low, 1e-12)), 0, 255).astype(np.uint8)


def _square(gray: np.ndarray, width: float, height: float) -> np.ndarray:
    """Pixels that are not square made so: else a head would not have its shape."""
    gray = np.ascontiguousarray(gray)
    if not (width > 0 and height > 0) or max(width, height) <= SQUARE * min(width, height):
        return gray
    side = min(width, height)
    size = round(gray.shape[1] * width / side), round(gray.shape[0] * height / side)
    return cv2.resize(gray, size, interpolation=cv2.INTER_LINEAR)
