"""Error maps in the cache: made once, those of the detector to a bit, and of no other."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from studies.study import Lab, News
from training.cache import Cache
from training.data import Splits, split
from training.detector import DetectorSpec, FittedDetector, fit_detector
from training.features import FeatureStore
from training.stored_maps import stored_maps

TINY = {"image_size": 32, "n_epochs": 1, "latent_dim": 4}


@pytest.fixture
def splits(phantom) -> Splits:
    whole = split(phantom.labels, phantom.groups)
    return Splits(whole.train[:32], whole.val[:: len(whole.val) // 8], whole.test[:8])


@pytest.fixture
def store(phantom, tmp_path) -> FeatureStore:
    return FeatureStore(phantom, Cache(tmp_path), torch.device("cpu"), say=lambda _: None)


@pytest.fixture
def detector(splits, store) -> FittedDetector:
    return fit_detector(DetectorSpec("autoencoder", TINY), splits, store, precision="fp32")


def entries(store) -> int:
    return len(store.cache.entries())


def without_network(detector: FittedDetector) -> FittedDetector:
    """The same, which can make no map any more."""
    return replace(detector, mapper=type("Mapper", (), {"network": detector.mapper.network})())


def test_stored_maps_are_the_detectors_and_are_made_once(detector, splits):
    made, again = (stored_maps(one, splits.val) for one in (detector, without_network(detector)))
    expected = detector.error_maps(splits.val)
    for maps in (made, again):
        assert maps.values.dtype == np.float32
        np.testing.assert_array_equal(maps.values, expected.values)
        np.testing.assert_array_equal(maps.labels, expected.labels)
        np.testing.assert_array_equal(maps.groups, expected.groups)


def test_other_images_weights_or_scaling_have_other_maps(detector, splits, store):
    spec = DetectorSpec("autoencoder", TINY | {"smoothing": 1.0})
    smoothed = fit_detector(spec, splits, store, precision="fp32")
    other = fit_detector(replace(spec, seed=1), splits, store, precision="fp32")
    assert smoothed.key == detector.key != other.key
    before = entries(store)
    for one, indices in [
        (detector, splits.val),
        (detector, splits.val[::-1]),
        (smoothed, splits.val),
        (other, splits.val),
    ]:
        expected = one.error_maps(indices).values
        np.testing.assert_array_equal(stored_maps(one, indices).values, expected)
    assert entries(store) == before + 4


def test_a_fit_that_is_made_again_with_other_weights_has_other_maps(detector, splits):
    stored_maps(detector, splits.val)
    checksums = detector.folder / "checksums.json"
    checksums.write_text('{"weights.safetensors": "another"}')
    with pytest.raises(AttributeError):  # it has none yet
        stored_maps(without_network(detector), splits.val)


def test_a_study_stores_the_maps_of_a_detectors_defaults_alone(splits, store, monkeypatch):
    monkeypatch.setattr(
        "models.autoencoder.SCHEDULE", {"n_epochs": 1, "batch_size": 32, "patience": 1}
    )
    lab = Lab(store, splits, precision="fp32", seed=0, detector="autoencoder")
    plain = lab.fit_detector({}, News())
    before = entries(store)
    lab.maps(plain, "val")
    assert entries(store) == before + 1
    lab.maps(lab.fit_detector({"smoothing": 1.0}, News()), "val")
    assert entries(store) == before + 1
