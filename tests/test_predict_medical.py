"""DICOM and NIfTI files as `make predict` reads them: windows, polarity, orientation."""

import sys
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from studies.use.files import Named
from studies.use.slices import Slice, Unread, read_slices

AXIAL, CORONAL = [1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, -1]


def head(height=120, width=100) -> np.ndarray:
    """A disc, brighter at the top and to the right, in values of a scanner."""
    y, x = np.mgrid[:height, :width]
    inside = (y - height / 2) ** 2 + (x - width / 2) ** 2 < (width / 3) ** 2
    return np.where(inside, 900 + 2 * x - 3 * y, 40).astype(np.uint16)


def write_dicom(path: Path, pixels: np.ndarray, **tags) -> Path:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, MRImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    file = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    file.Rows, file.Columns = pixels.shape[-2:]
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated = file.BitsStored = 16
    file.HighBit, file.PixelRepresentation = 15, 0
    if pixels.ndim == 3:
        file.NumberOfFrames = len(pixels)
    for name, value in tags.items():
        setattr(file, name, value)
    file.PixelData = pixels.tobytes()
    file.save_as(path)
    return path


def write_nifti(path: Path, values: np.ndarray, spacing=(1, 1, 1), codes="RAS") -> Path:
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for axis, (code, step) in enumerate(zip(codes, spacing, strict=True)):
        row = "RAS".find(code) if code in "RAS" else "LPI".find(code)
        affine[row, axis] = step if code in "RAS" else -step
    nibabel.save(nibabel.Nifti1Image(values, affine), path)
    return path


def read(path: Path, which="middle"):
    return read_slices(Named(path, path.name, Path(path.name)), which, "head")


def only(path: Path, which="middle"):
    (found,) = read(path, which)
    return found


def alike(gray: np.ndarray, values: np.ndarray) -> float:
    return float(np.corrcoef(gray.ravel(), values.astype(float).ravel())[0, 1])


def test_a_dicom_slice_is_grey_and_framed(tmp_path):
    found = only(write_dicom(tmp_path / "a.dcm", head(), ImageOrientationPatient=AXIAL))
    assert isinstance(found, Slice) and found.name == "a.dcm"
    assert found.gray.dtype == np.uint8 and alike(found.gray, head()) > 0.999
    assert found.frame.shape == (128, 128)


def test_dicom_is_known_without_a_suffix(tmp_path):
    assert isinstance(only(write_dicom(tmp_path / "IM0001", head())), Slice)


def test_monochrome1_is_turned_round(tmp_path):
    inverted = (1000 - head().astype(int)).clip(0).astype(np.uint16)
    tag = {"PhotometricInterpretation": "MONOCHROME1"}
    assert alike(only(write_dicom(tmp_path / "a.dcm", inverted, **tag)).gray, head()) > 0.999


def test_the_files_window_is_applied(tmp_path):
    window = {"WindowCenter": 800, "WindowWidth": 100}
    gray = only(write_dicom(tmp_path / "a.dcm", head(), **window)).gray
    assert set(np.unique(gray[head() <= 748])) == {0} and gray[head() >= 852].min() == 255
    assert np.unique(gray).size > 50


def test_rescaled_values_are_what_is_windowed(tmp_path):
    tags = {"RescaleSlope": 2, "RescaleIntercept": -1000, "WindowCenter": 600, "WindowWidth": 200}
    gray = only(write_dicom(tmp_path / "a.dcm", head(), **tags)).gray
    assert set(np.unique(gray[head() <= 748])) == {0} and gray[head() >= 852].min() == 255


def test_a_few_very_bright_pixels_leave_the_rest_visible(tmp_path):
    pixels = head()
    pixels[60, 50] = 60000
    assert np.median(only(write_dicom(tmp_path / "a.dcm", pixels)).gray[50:70, 40:60]) > 150


def test_padding_outside_the_field_is_dark(tmp_path):
    pixels = head()
    pixels[:20] = 5000
    gray = only(write_dicom(tmp_path / "a.dcm", pixels, PixelPaddingValue=5000)).gray
    assert gray[:20].max() == 0


def test_of_several_frames_the_middle_one_is_taken_unless_others_are_wished_for(tmp_path):
    frames = np.stack([head() // (5 - i) for i in range(4)])
    path = write_dicom(tmp_path / "a.dcm", frames)
    assert only(path).name == "a.dcm#2" and only(path, 1).name == "a.dcm#1"
    assert [found.name for found in read(path, "all")] == [f"a.dcm#{i}" for i in range(4)]
    assert only(path, 4) == Unread("a.dcm", "there is no slice 4: the file's are 0 to 3")


def test_slices_that_are_not_axial_are_refused(tmp_path):
    found = only(write_dicom(tmp_path / "a.dcm", head(), ImageOrientationPatient=CORONAL))
    assert found.reason == "the slice is coronal, and models know axial ones"


@pytest.mark.parametrize("kept", [0, 100, 140, 400, -500])
def test_a_damaged_dicom_file_is_one_sentence(tmp_path, kept):
    path = write_dicom(tmp_path / "a.dcm", head())
    path.write_bytes(path.read_bytes()[:kept])
    found = only(path)
    assert isinstance(found, Unread) and found.reason and "\n" not in found.reason


def volume() -> np.ndarray:
    """(x to the right, y to the front, z up): the head in slice z is z times as bright."""
    slice_ = head()[::-1, ::-1].T.astype(np.float32)
    return slice_[..., None] * np.array([0, 1, 2, 3, 0], np.float32)


def test_the_middle_axial_slice_of_a_volume_looks_up_with_its_right_on_the_left(tmp_path):
    found = only(write_nifti(tmp_path / "a.nii.gz", volume()))
    assert found.name == "a.nii.gz#2" and alike(found.gray, head()) > 0.999


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "SAL"])
def test_a_volumes_axes_are_brought_in_order(tmp_path, codes):
    along = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}
    turned = volume().transpose([along[code] for code in codes])
    turned = turned[tuple(slice(None, None, -1 if code in "LPI" else 1) for code in codes)]
    found = only(write_nifti(tmp_path / "a.nii", np.ascontiguousarray(turned), codes=codes))
    assert alike(found.gray, head()) > 0.999


def test_the_empty_ends_of_a_volume_are_left_out(tmp_path):
    path = write_nifti(tmp_path / "a.nii", volume())
    assert [found.name for found in read(path, "all")] == [f"a.nii#{i}" for i in (1, 2, 3)]
    assert "show no head" in only(path, 0).reason


def test_all_slices_of_a_volume_share_one_scale(tmp_path):
    dim, middle, bright = read(write_nifti(tmp_path / "a.nii", volume()), "all")
    assert middle.gray.max() == pytest.approx(2 * dim.gray.max(), abs=3)
    assert bright.gray.max() == 255


def test_pixels_that_are_not_square_are_made_so(tmp_path):
    thin = volume()[::2]
    found = only(write_nifti(tmp_path / "a.nii", thin, spacing=(2, 1, 1)))
    assert found.gray.shape == (120, 100) and alike(found.gray, head()) > 0.97


def test_of_volumes_over_time_the_first_is_taken_and_gaps_are_dark(tmp_path):
    several = np.stack([volume(), 0 * volume()], axis=-1)
    several[0, 0] = np.nan
    assert alike(only(write_nifti(tmp_path / "a.nii", several)).gray, head()) > 0.99


@pytest.mark.parametrize("kept", [0, 10, 200, -300])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_damaged_volume_is_one_sentence(tmp_path, kept, name):
    path = write_nifti(tmp_path / name, volume())
    path.write_bytes(path.read_bytes()[:kept])
    found = only(path)
    assert isinstance(found, Unread) and found.reason and "\n" not in found.reason


@pytest.mark.parametrize(("package", "name"), [("pydicom", "a.dcm"), ("nibabel", "a.nii")])
def test_without_its_reader_a_file_is_reported_with_the_cure(tmp_path, monkeypatch, package, name):
    path = tmp_path / name
    write_dicom(path, head()) if package == "pydicom" else write_nifti(path, volume())
    monkeypatch.setitem(sys.modules, package, None)
    reason = only(path).reason
    assert "is not read here" in reason and "pip install --constraint" in reason
    assert package in reason


def test_a_dicom_file_without_an_image_is_said(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", head())
    file = pydicom.dcmread(path)
    del file.PixelData
    file.save_as(path)
    assert only(path).reason == "the DICOM file holds no image"
