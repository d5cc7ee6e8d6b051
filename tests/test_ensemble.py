"""Ensemble: errors of several detectors, added up by weight."""

import pytest
import torch

from models.ensemble import MEMBERS, SIDE, build
from training.cache import Cache
from training.data import Splits, split
from training.detector import DetectorSpec, fit_detector
from training.features import FeatureStore

CPU = torch.device("cpu")


def weights(**chosen: float) -> dict[str, float]:
    return {f"weight_{name}": chosen.get(name, 0.0) for name in MEMBERS}


def test_errors_are_added_up_in_their_shares():
    ensemble = build(**weights(patch_features=3.0, autoencoder=1.0))
    features = torch.stack([torch.full((SIDE, SIDE), v) for v in (0.8, 9.0, 9.0, 0.4)])[None]
    errors = ensemble.compare(features, torch.Size([128, 128]))
    torch.testing.assert_close(errors, torch.full((1, 1, 128, 128), 0.75 * 0.8 + 0.25 * 0.4))


def test_members_count_in_units_of_a_healthy_images_error():
    ensemble = build()
    x = torch.rand(2, 1, 128, 128, generator=torch.Generator().manual_seed(0))
    for member in ensemble.members.values():
        member.network = Ones()
    ensemble.members["autoencoder"].reference.fill_(4.0)
    features = ensemble.extract(x)
    assert features.shape == (2, len(MEMBERS), SIDE, SIDE)
    expected = torch.tensor([0.25 if name == "autoencoder" else 1.0 for name in MEMBERS])
    torch.testing.assert_close(features, expected[:, None, None].expand_as(features))


class Ones(torch.nn.Module):
    def error_map(self, x):
        return torch.ones_like(x)


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        ({"weight_autoencoder": -1.0}, r"weight_autoencoder must be at least 0, got -1\.0\."),
        (weights(), r"An ensemble needs a weight above 0, got 0 for every member\."),
    ],
)
def test_a_bad_weight_is_a_sentence(chosen, sentence):
    with pytest.raises(ValueError, match=sentence):
        build(**chosen)


@pytest.mark.slow
def test_members_are_fitted_once_and_another_weight_fits_nothing(phantom, tmp_path):
    whole = split(phantom.labels, phantom.groups)
    splits = Splits(whole.train[:64], whole.val, whole.test)
    store = FeatureStore(phantom, Cache(tmp_path), CPU, say=lambda _: None)
    fits = []

    def fit(**chosen: float):
        spec = DetectorSpec("ensemble", {"member_epochs": 2, **chosen})
        return fit_detector(
            spec, splits, store, precision="fp32", on_train=lambda: fits.append(chosen)
        )

    first = fit()
    assert len(fits) == len(MEMBERS) + 1
    alone = fit(**weights(patch_features=1.0))
    assert len(fits) == len(MEMBERS) + 1 and alone.key == first.key
    images = whole.val[:4]
    assert (first.error_maps(images).values != alone.error_maps(images).values).any()
    member = fit_detector(DetectorSpec("patch_features"), splits, store, precision="fp32")
    short = DetectorSpec("autoencoder", {"n_epochs": 2})
    assert not member.trained
    assert not fit_detector(short, splits, store, precision="fp32").trained
    theirs, ours = member.error_maps(images).values, alone.error_maps(images).values
    assert abs(theirs.max((1, 2)) - ours.max((1, 2))).max() < 0.1  # at 64 px, its own reference
