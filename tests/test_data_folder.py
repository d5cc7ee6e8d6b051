"""Folders of images: what is read, what is left out and what is refused."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from training.data import DataError, phantom
from training.data.folder import list_images, make_dataset
from training.data.outlines import OUTLINES_FILE


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Forty slices, no two of them copies."""
    folder = tmp_path_factory.mktemp("drawn") / "set"
    phantom.write(folder, n_images=40, n_groups=40, seed=1)
    return folder


@pytest.fixture
def folder(drawn, tmp_path):
    """A copy that a test may spoil."""
    return shutil.copytree(drawn, tmp_path / "set")


def dataset_of(folder, preprocess="head"):
    return make_dataset(list_images(folder), name="set", preprocess=preprocess)


def test_a_folder_becomes_arrays_in_the_order_of_its_manifest(folder):
    dataset = dataset_of(folder)
    assert dataset.images.shape == dataset.masks.shape == (40, 128, 128)
    assert dataset.images.dtype == np.uint8 and dataset.labels.dtype == np.int64
    assert dataset.manifest["file"].tolist() == sorted(dataset.manifest["file"])
    from_names = [int(file.startswith("yes/")) for file in dataset.manifest["file"]]
    assert dataset.labels.tolist() == dataset.manifest["label"].tolist() == from_names
    assert dataset.groups.tolist() == dataset.manifest["group"].tolist()
    assert dataset.left_out.empty
    with Image.open(folder / dataset.manifest["file"][5]) as image:
        assert image.size == tuple(dataset.manifest.loc[5, ["width", "height"]])


def test_files_that_are_no_images_and_hidden_ones_are_passed_over(folder):
    for name in ("README", ".DS_Store", "._y1.jpg", "notes.json"):
        (folder / "yes" / name).write_text("no image")
    (folder / "no" / "thumbnails.jpg").mkdir()
    dataset = dataset_of(folder)
    assert len(dataset.images) == 40 and dataset.left_out.empty


def test_a_few_bad_files_are_left_out_with_their_reasons(folder):
    image = (folder / "yes" / "y3.jpg").read_bytes()
    (folder / "yes" / "y3.jpg").write_bytes(image[: len(image) // 2])
    (folder / "no" / "n2.jpg").write_bytes(b"")
    (folder / "no" / "n4.jpg").write_text("hello")
    Image.new("L", (64, 64), 17).save(folder / "yes" / "y5.jpg")
    dataset = dataset_of(folder)
    reasons = dict(dataset.left_out.to_numpy().tolist())
    assert len(dataset.images) == len(dataset.manifest) == 36
    assert set(reasons) == {"no/n2.jpg", "no/n4.jpg", "yes/y3.jpg", "yes/y5.jpg"}
    assert "truncated" in reasons["yes/y3.jpg"]
    assert reasons["no/n2.jpg"] == "the file is empty"
    assert reasons["no/n4.jpg"] == "the file is no image"
    assert "one grey value (17)" in reasons["yes/y5.jpg"]


def test_more_than_a_tenth_of_bad_files_is_refused(folder):
    for number in range(5):
        (folder / "no" / f"n{number}.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"5 of 40 images .* more than 10%; replace or remove"):
        dataset_of(folder)


def test_one_picture_under_both_labels_is_left_out_of_both(folder):
    shutil.copy(folder / "no" / "n7.jpg", folder / "yes" / "copy.jpg")
    dataset = dataset_of(folder)
    assert dataset.left_out["file"].tolist() == ["no/n7.jpg", "yes/copy.jpg"]
    assert (dataset.left_out["reason"] == "the same file is in yes/ and in no/").all()


@pytest.mark.parametrize("name", ["yes", "no"])
def test_a_missing_class_folder_is_refused(folder, name):
    shutil.rmtree(folder / name)
    with pytest.raises(DataError, match=f"holds no folder {name}/. Put slices"):
        list_images(folder)


def test_an_empty_class_is_refused(folder):
    shutil.rmtree(folder / "no")
    (folder / "no").mkdir()
    with pytest.raises(DataError, match="no holds no images; add"):
        list_images(folder)


def test_fewer_than_ten_groups_in_a_class_are_refused(folder):
    for number in range(11):
        (folder / "no" / f"n{number}.jpg").unlink()
    with pytest.raises(DataError, match="at least 10 groups of near-copies to be split, got 9"):
        dataset_of(folder)


def test_a_link_out_of_the_folder_is_refused(folder, tmp_path):
    shutil.copy(folder / "no" / "n1.jpg", tmp_path / "secret.jpg")
    (folder / "no" / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    with pytest.raises(DataError, match=r"link\.jpg leads out of"):
        list_images(folder)


def test_a_linked_class_folder_is_refused(folder, tmp_path):
    shutil.move(folder / "no", tmp_path / "elsewhere")
    (folder / "no").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="leads out of"):
        list_images(folder)


def test_the_digest_changes_with_images_labels_groups_and_pre_processing(folder):
    first = dataset_of(folder).digest
    assert len(first) == 32 and first == dataset_of(folder).digest
    assert first != dataset_of(folder, preprocess="paper").digest
    shutil.move(folder / "no" / "n1.jpg", folder / "yes" / "n1.jpg")
    relabelled = dataset_of(folder).digest
    with Image.open(folder / "yes" / "y1.jpg") as image:
        image.transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(folder / "yes" / "y1.jpg")
    flipped = dataset_of(folder).digest
    assert len({first, relabelled, flipped}) == 3


def test_groups_do_not_depend_on_the_pre_processing(folder):
    by_method = [dataset_of(folder, preprocess=method).groups for method in ("head", "paper")]
    assert np.array_equal(*by_method)


def outline(shape):
    return {"y0.jpg12": {"filename": "y0.jpg", "regions": [{"shape_attributes": shape}]}}


@pytest.mark.parametrize(
    "shape",
    [
        {"name": "polygon", "all_points_x": [90, 130, 130, 90], "all_points_y": [90, 90, 130, 130]},
        {"name": "ellipse", "cx": 110, "cy": 110, "rx": 30, "ry": 15, "theta": 0.3},
        {"name": "circle", "cx": 110, "cy": 110, "r": 20},
    ],
)
def test_an_outlined_image_has_a_mask_and_others_have_none(folder, shape):
    (folder / OUTLINES_FILE).write_text(json.dumps(outline(shape)))
    dataset = dataset_of(folder)
    outlined = dataset.manifest["file"] == "yes/y0.jpg"
    assert np.array_equal(dataset.has_mask, outlined)
    assert dataset.masks[outlined].any() and not dataset.masks[~outlined].any()


@pytest.mark.parametrize("content", ["{", "[]", json.dumps(outline({"name": "star"}))])
def test_broken_outlines_are_refused(folder, content):
    (folder / OUTLINES_FILE).write_text(content)
    with pytest.raises(DataError, match="does not hold outlines"):
        dataset_of(folder)
