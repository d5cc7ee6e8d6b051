"""Synthetic sets: written whole, read as written, and joined to real images without a leak."""

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.data import DataError, load, split
from training.data.join import join
from training.data.splits import leaked_share, manifest_with_splits
from training.data.synthetic import Origin, read_synthetic, write_synthetic

ORIGIN = Origin(
    generator="vae",
    source="the paper's values",
    hyperparameters={"no": {"latent_dim": 2}, "yes": {"latent_dim": 3}},
    seed=0,
    data="phantom",
    data_digest="0" * 32,
    preprocess="head",
    protocol="grouped",
    scheme="classifier",
    seen={"no": ["a"], "yes": ["b"]},
    measures={"no": {"kid": 0.1}, "yes": {"kid": 0.2}},
)


def slices(n, seed=0):
    """Noise (n, 128, 128)."""
    return np.random.default_rng(seed).integers(0, 255, (n, 128, 128), dtype=np.uint8)


def write(folder, *, n=12, origin=ORIGIN):
    """Two batches a class."""
    images = {
        "no": iter(np.array_split(slices(n, 1), 2)),
        "yes": iter(np.array_split(slices(n, 2), 2)),
    }
    return write_synthetic(folder, images, origin)


def seeing(dataset, splits, **changes):
    """An origin whose generator learned from the training images of a split."""
    train = splits.train
    checksums, labels = dataset.manifest["sha256"].to_numpy(), dataset.labels
    seen = {
        name: checksums[train[labels[train] == label]].tolist()
        for name, label in (("no", 0), ("yes", 1))
    }
    return replace(ORIGIN, **{"seen": seen} | changes)


@pytest.fixture
def folder(tmp_path):
    """A set on disk, which a test may spoil."""
    write(tmp_path / "vae")
    return tmp_path / "vae"


@pytest.fixture(scope="module")
def splits(phantom):
    return split(phantom.labels, phantom.groups, scheme="classifier")


def test_what_is_written_is_read_pixel_for_pixel(folder):
    read = read_synthetic(folder)
    assert np.array_equal(read.images, np.concatenate([slices(12, 1), slices(12, 2)]))
    assert read.labels.tolist() == [0] * 12 + [1] * 12
    assert read.name == "vae" and read.origin == ORIGIN
    assert read.files[0] == "no/00000.png" and read.files[-1] == "yes/00011.png"
    assert read.sha256[0] == sha256((folder / read.files[0]).read_bytes()).hexdigest()


def test_a_set_is_replaced_by_the_next_one_of_its_name(folder):
    assert len(write(folder, n=3).images) == 6
    assert len(list(folder.glob("*/*.png"))) == 6


def test_what_fails_half_way_leaves_the_old_set_and_nothing_else(folder):
    def one_then_interrupted():
        yield slices(2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_synthetic(folder, {"no": one_then_interrupted()}, ORIGIN)
    assert len(read_synthetic(folder).images) == 24
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == ["vae"]


def test_a_folder_without_a_manifest_is_no_synthetic_set(folder):
    (folder / "manifest.json").unlink()
    with pytest.raises(DataError, match=r"nobody knows which images .* `make generate`"):
        read_synthetic(folder)


@pytest.mark.parametrize("text", ["{", '{"files": {}}', '{"origin": {"seed": 1}, "files": {}}'])
def test_a_damaged_manifest_is_refused(folder, text):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(DataError, match="cannot be read"):
        read_synthetic(folder)


def test_a_changed_image_is_refused(folder):
    Image.fromarray(slices(1)[0]).save(folder / "no" / "00003.png")
    with pytest.raises(DataError, match=r"00003\.png has changed"):
        read_synthetic(folder)


def test_images_that_are_missing_or_unknown_are_refused(folder):
    (folder / "no" / "00003.png").unlink()
    (folder / "yes" / "mine.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="1 are missing, 1 are unknown"):
        read_synthetic(folder)


@pytest.mark.parametrize("image", [Image.new("L", (64, 64)), Image.new("RGB", (128, 128))])
def test_images_of_other_sizes_and_kinds_are_refused(folder, image):
    image.save(folder / "no" / "00003.png")
    manifest = json.loads((folder / "manifest.json").read_text())
    content = (folder / "no" / "00003.png").read_bytes()
    manifest["files"]["no/00003.png"] = sha256(content).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=f"128 x 128; .* is {image.mode}, {image.width} x"):
        read_synthetic(folder)


def test_synthetic_images_alone_take_the_place_of_the_real_training_images(
    phantom, splits, tmp_path
):
    synthetic = write(tmp_path / "vae", origin=seeing(phantom, splits))
    joined, changed = join(phantom, splits, synthetic, mode="synthetic", scheme="classifier")
    n = len(phantom.images)
    assert changed.train.tolist() == list(range(n, n + 24))
    assert np.array_equal(joined.images[changed.train], synthetic.images)
    assert joined.labels[changed.train].tolist() == synthetic.labels.tolist()
    for part in ("val", "test"):
        assert np.array_equal(getattr(changed, part), getattr(splits, part))
    assert np.array_equal(joined.images[:n], phantom.images)


def test_mixed_training_has_both(phantom, splits, tmp_path):
    synthetic = write(tmp_path / "vae", origin=seeing(phantom, splits))
    joined, changed = join(phantom, splits, synthetic, mode="mixed", scheme="classifier")
    assert changed.train.tolist() == [*splits.train, *range(600, 624)]
    assert leaked_share(changed, joined.groups) == 0


def test_every_array_and_the_manifest_have_a_row_for_each_image(phantom, splits, tmp_path):
    synthetic = write(tmp_path / "vae", origin=seeing(phantom, splits))
    joined, changed = join(phantom, splits, synthetic, mode="synthetic", scheme="classifier")
    arrays = (joined.images, joined.labels, joined.groups, joined.masks, joined.has_mask)
    assert {len(array) for array in arrays} == {len(joined.manifest)} == {624}
    assert len(set(joined.groups[600:]) - set(phantom.groups)) == 24
    assert not joined.has_mask[600:].any() and joined.digest != phantom.digest
    assert joined.manifest.columns.tolist() == phantom.manifest.columns.tolist()
    assert joined.manifest["label"].tolist() == joined.labels.tolist()
    assert joined.manifest["file"].iloc[600] == "synthetic/vae/no/00000.png"
    table = manifest_with_splits(joined, changed)
    assert set(table["split"][600:]) == {"train"}
    assert set(table["split"][splits.train]) == {"unused"}


def test_a_detector_is_trained_on_the_healthy_ones_alone(phantom, tmp_path):
    splits = split(phantom.labels, phantom.groups, scheme="detector")
    synthetic = write(tmp_path / "vae", origin=seeing(phantom, splits))
    joined, changed = join(phantom, splits, synthetic, mode="mixed", scheme="detector")
    assert set(joined.labels[changed.train]) == {0} and len(joined.labels) == 612


def test_a_class_that_is_trained_on_must_be_there(phantom, splits, tmp_path):
    origin = seeing(phantom, splits)
    synthetic = write_synthetic(tmp_path / "vae", {"no": [slices(4)]}, origin)
    with pytest.raises(DataError, match=r"no images of the class tumour \(yes/\).*FOR=classifier"):
        join(phantom, splits, synthetic, mode="mixed", scheme="classifier")


@pytest.mark.parametrize(("part", "counts"), [("test", "1 test and 0"), ("val", "0 test and 1")])
def test_a_generator_that_saw_one_held_out_image_is_refused(
    phantom, splits, tmp_path, part, counts
):
    origin = seeing(phantom, splits)
    held_out = getattr(splits, part)
    healthy = held_out[phantom.labels[held_out] == 0]
    origin.seen["no"].append(phantom.manifest["sha256"][healthy[0]])
    synthetic = write(tmp_path / "vae", origin=origin)
    with pytest.raises(DataError, match=rf"saw {counts} .* leak .* `make generate`"):
        join(phantom, splits, synthetic, mode="synthetic", scheme="classifier")


def test_the_set_of_another_seed_is_refused(phantom, splits, tmp_path):
    other = split(phantom.labels, phantom.groups, scheme="classifier", seed=1)
    synthetic = write(tmp_path / "vae-seed-1", origin=seeing(phantom, other))
    with pytest.raises(DataError, match="same SEED and SPLIT"):
        join(phantom, splits, synthetic, mode="mixed", scheme="classifier")


def test_the_tumours_that_a_generator_saw_are_no_matter_to_a_detector(phantom, tmp_path):
    splits = split(phantom.labels, phantom.groups, scheme="detector")
    origin = seeing(phantom, splits)
    tumors = phantom.labels == 1
    origin.seen["yes"] = phantom.manifest["sha256"][tumors].tolist()
    synthetic = write(tmp_path / "vae", origin=origin)
    join(phantom, splits, synthetic, mode="mixed", scheme="detector")


def test_on_a_random_split_a_file_that_is_in_both_parts_does_not_leak(phantom, tmp_path):
    checksums = phantom.manifest["sha256"].to_numpy(copy=True)
    splits = split(phantom.labels, phantom.groups, protocol="paper", scheme="classifier")
    checksums[splits.test[0]] = checksums[splits.train[0]]
    twice = replace(phantom, manifest=phantom.manifest.assign(sha256=checksums))
    synthetic = write(tmp_path / "vae", origin=seeing(twice, splits, protocol="paper"))
    join(twice, splits, synthetic, mode="mixed", scheme="classifier")


def test_a_generator_of_images_that_are_nowhere_is_refused(phantom, splits, tmp_path):
    origin = seeing(phantom, splits)
    origin.seen["yes"].append("f" * 64)
    synthetic = write(tmp_path / "vae", origin=origin)
    with pytest.raises(DataError, match="saw 1 images that are not in phantom"):
        join(phantom, splits, synthetic, mode="mixed", scheme="classifier")


def test_a_generator_that_does_not_say_what_it_saw_is_refused(phantom, splits, tmp_path):
    origin = seeing(phantom, splits, seen={"no": [], "yes": []})
    synthetic = write(tmp_path / "vae", origin=origin)
    with pytest.raises(DataError, match="does not say which images its generator saw"):
        join(phantom, splits, synthetic, mode="mixed", scheme="classifier")


def test_images_of_another_pre_processing_are_refused(phantom, splits, tmp_path):
    synthetic = write(tmp_path / "vae", origin=seeing(phantom, splits, preprocess="paper"))
    with pytest.raises(DataError, match="Say PREPROCESS=paper"):
        join(phantom, splits, synthetic, mode="mixed", scheme="classifier")


def test_an_unknown_mode_is_refused(phantom, splits, folder):
    with pytest.raises(DataError, match="synthetic, mixed, got 'both'"):
        join(phantom, splits, read_synthetic(folder), mode="both", scheme="classifier")


def test_a_set_is_data_as_it_is_and_each_image_a_group(folder, tmp_path):
    said = []
    dataset = load(str(folder), root=tmp_path / "var", say=said.append)
    assert dataset.name == "vae" and said[0].endswith("synthetic: taken as they are")
    assert np.array_equal(dataset.images, np.concatenate([slices(12, 1), slices(12, 2)]))
    assert len(set(dataset.groups)) == 24
    again = load(str(folder), root=tmp_path / "var", say=said.append)
    assert again.digest == dataset.digest and again.manifest.equals(dataset.manifest)


def test_a_set_of_one_class_is_no_data(tmp_path):
    folder = tmp_path / "vae-detector"
    write_synthetic(folder, {"no": [slices(12)]}, ORIGIN)
    with pytest.raises(DataError, match=r"no synthetic images for yes/.* FOR=classifier"):
        load(str(folder), root=tmp_path / "var", say=lambda _: None)


def test_a_set_of_another_pre_processing_is_data_under_that_one_alone(folder, tmp_path):
    with pytest.raises(DataError, match="Say PREPROCESS=head"):
        load(str(folder), preprocess="paper", root=tmp_path / "var", say=lambda _: None)


def test_a_spoilt_set_is_no_data(folder, tmp_path):
    load(str(folder), root=tmp_path / "var", say=lambda _: None)
    Path(folder, "no", "00001.png").unlink()
    with pytest.raises(DataError, match="1 are missing"):
        load(str(folder), root=tmp_path / "var", say=lambda _: None)
