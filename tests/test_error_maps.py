"""Error maps: scaled per image, and measured one way for every image."""

import numpy as np
import pytest
import torch

from models.brain_cvae import build
from training import error_maps
from training.error_maps import make_error_maps, reconstruct, scale_per_image
from training.loop import as_input

CPU = torch.device("cpu")


def images(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 128, 128)).astype(np.uint8)


def test_each_map_is_scaled_by_its_own_minimum_and_maximum():
    errors = np.array([[[1, 2], [3, 5]], [[10, 10], [20, 30]]], np.float32)
    scaled = scale_per_image(errors)
    assert scaled.tolist() == [[[0, 0.25], [0.5, 1]], [[0, 0], [0.5, 1]]]
    assert scaled.dtype == np.float32


def test_a_constant_map_becomes_zeros():
    assert not scale_per_image(np.full((2, 3, 3), 0.7, np.float32)).any()


def test_a_map_is_the_scaled_error_of_the_reconstruction():
    module, x = build(), images(3)
    maps = make_error_maps(module, x, np.array([0, 1, 1]), np.array([4, 5, 5]), device=CPU)
    errors = np.abs(x / np.float32(255) - reconstruct(module, x, device=CPU))
    np.testing.assert_allclose(maps.values, scale_per_image(errors), atol=1e-5)
    assert maps.values.dtype == np.float32
    assert maps.labels.tolist() == [0, 1, 1]
    assert maps.groups.tolist() == [4, 5, 5]


@pytest.mark.parametrize("n", [0, 1, 4, 5])
def test_batches_cover_every_image_in_order(n, monkeypatch):
    monkeypatch.setattr(error_maps, "BATCH_SIZE", 2)
    module, x = build(image_size=32), images(n)
    whole = module.reconstruct(as_input(torch.from_numpy(x))).squeeze(1).numpy()
    np.testing.assert_allclose(reconstruct(module, x, device=CPU), whole, atol=1e-6)
