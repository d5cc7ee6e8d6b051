"""The supervised reference: labels on frozen features."""

import numpy as np
import pytest
import torch

from training import supervised
from training.cache import Cache
from training.data import split
from training.detector import DetectorSpec, features_of
from training.features import FeatureStore
from training.loop import TrainingError
from training.supervised import supervised_reference

CPU = torch.device("cpu")


@pytest.fixture
def store(phantom, tmp_path, monkeypatch):
    """Noise for features, one channel of which knows the label."""
    rng = np.random.default_rng(0)
    known = rng.normal(size=(len(phantom.labels), 152, 8, 8))
    known[:, 47] += 1.0 * phantom.labels[:, None, None]
    features = torch.from_numpy(known.astype(np.float32))
    monkeypatch.setattr(
        supervised, "features_of", lambda spec, store, indices: lambda flip: features
    )
    return FeatureStore(phantom, Cache(tmp_path), CPU, say=lambda _: None)


def test_what_the_features_know_is_learned_and_scored_on_the_classifiers_test_split(store):
    scored = supervised_reference(store, seed=3)
    dataset = store.dataset
    test = split(dataset.labels, dataset.groups, scheme="classifier", seed=3).test
    np.testing.assert_array_equal(scored.labels, dataset.labels[test])
    np.testing.assert_array_equal(scored.groups, dataset.groups[test])
    assert scored.metrics["auroc"] > 0.9
    assert scored.metrics["accuracy"] > 0.8


def test_a_tests_features_change_its_own_scores_alone(store):
    dataset = store.dataset
    test = split(dataset.labels, dataset.groups, scheme="classifier", seed=0).test
    before = supervised_reference(store, seed=0).scores
    known = supervised.features_of(None, store, np.arange(len(dataset.labels)))(())
    known[test[0]] += 10.0  # an image of the test split, changed before anything is learned
    after = supervised_reference(store, seed=0).scores
    assert abs(after[0] - before[0]) > 1
    np.testing.assert_allclose(after[1:], before[1:], atol=1e-6)


def test_a_network_that_is_trained_here_has_no_frozen_features(phantom, tmp_path):
    store = FeatureStore(phantom, Cache(tmp_path), CPU, say=lambda _: None)
    with pytest.raises(TrainingError, match="brain_cvae has no frozen features here"):
        features_of(DetectorSpec("brain_cvae"), store, np.arange(2))
