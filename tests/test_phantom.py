"""The phantom set: laid out and as awkward as Br35H, with copies and lesions known by design."""

import numpy as np
import pytest
from PIL import Image

from training.data import phantom as generator
from training.data.folder import list_images, make_dataset
from training.data.outlines import fill, read_outlines


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom") / "set"
    generator.write(folder, n_images=80, n_groups=40, seed=5)
    return folder


def test_both_classes_have_half_of_the_images_and_lesions_are_outlined(folder):
    assert len(list((folder / "no").iterdir())) == len(list((folder / "yes").iterdir())) == 40
    assert set(read_outlines(folder)) == {path.name for path in (folder / "yes").iterdir()}


def test_the_same_seed_draws_the_same_files_and_another_draws_others(folder, tmp_path):
    for name, seed in (("again", 5), ("other", 6)):
        generator.write(tmp_path / name, n_images=80, n_groups=40, seed=seed)
    first, again, other = (
        (path / "yes" / "y7.jpg").read_bytes()
        for path in (folder, tmp_path / "again", tmp_path / "other")
    )
    assert first == again != other


def test_slices_differ_in_size(folder):
    sizes = {Image.open(path).size for path in folder.glob("*/*.jpg")}
    assert len(sizes) > 25


def test_the_copy_finder_finds_the_groups_that_were_drawn(folder):
    dataset = make_dataset(list_images(folder), name="phantom", preprocess="head")
    assert len(np.unique(dataset.groups)) == pytest.approx(40, abs=1)


def lesions(drawn):
    points = [outline.round().astype(np.int32) for outline in drawn.outlines]
    return fill(points, drawn.image.shape) > 0


@pytest.mark.parametrize("seed", range(8))
def test_outlines_of_a_copy_are_flipped_as_its_image_is(seed):
    rng = np.random.default_rng(seed)
    original = generator.draw(rng, lesion=True)
    copy = generator.near_copy(original, rng)
    steps = max(
        ((y, x) for y in (1, -1) for x in (1, -1)),
        key=lambda step: np.corrcoef(
            original.image[:: step[0], :: step[1]].ravel(), copy.image.ravel()
        )[0, 1],
    )
    before, after = lesions(original)[:: steps[0], :: steps[1]], lesions(copy)
    assert 0.002 < after.mean() < 0.3
    assert (before & after).sum() / (before | after).sum() > 0.9


def test_healthy_slices_have_no_outline():
    assert generator.draw(np.random.default_rng(0), lesion=False).outlines == []


def test_the_default_set_is_large_enough_for_a_study(phantom):
    assert np.bincount(phantom.labels).tolist() == [300, 300]
    for label in (0, 1):
        assert len(np.unique(phantom.groups[phantom.labels == label])) >= 60
    assert phantom.has_mask.sum() == 300
    assert phantom.masks[phantom.has_mask].any(axis=(1, 2)).all()
