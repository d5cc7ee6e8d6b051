"""Error maps: measured one way for every image, batch by batch."""

import numpy as np
import pytest
import torch

from models.brain_cvae import build
from models.error_mapper import ErrorMapper
from training import error_maps
from training.error_maps import map_images, prepared, raw_errors, reconstruct
from training.loop import as_input

CPU = torch.device("cpu")


def images(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 128, 128)).astype(np.uint8)


def scaled(errors: np.ndarray) -> np.ndarray:
    low = errors.min(axis=(1, 2), keepdims=True)
    return (errors - low) / (errors.max(axis=(1, 2), keepdims=True) - low)


def test_a_map_is_the_scaled_error_of_the_reconstruction():
    mapper, x = ErrorMapper(build()), images(3)
    errors = np.abs(x / np.float32(255) - reconstruct(mapper, x, device=CPU))
    maps = map_images(mapper, x, device=CPU)
    np.testing.assert_allclose(maps, scaled(errors), atol=1e-5)
    assert maps.dtype == np.float32
    raw = raw_errors(mapper, x, device=CPU).squeeze(1)
    np.testing.assert_allclose(raw, errors, atol=1e-5)


@pytest.mark.parametrize("n", [1, 4, 5])
def test_batches_cover_every_image_in_order(n, monkeypatch):
    monkeypatch.setattr(error_maps, "IN_CACHE", 2)
    mapper, x = ErrorMapper(build(image_size=32)), images(n)
    inputs = as_input(torch.from_numpy(x))
    whole = mapper.network.reconstruct(inputs).squeeze(1).numpy()
    np.testing.assert_allclose(reconstruct(mapper, x, device=CPU), whole, atol=1e-6)
    whole = mapper.error_map(inputs).squeeze(1).numpy()
    np.testing.assert_allclose(map_images(mapper, x, device=CPU), whole, atol=1e-5)


def test_the_network_sees_the_grey_values_that_the_detector_was_given():
    x = images(2)
    mapper = ErrorMapper(build(image_size=32), intensity="zscore")
    other = ErrorMapper(mapper.network)
    seen = prepared(mapper, x)
    assert not np.array_equal(seen, x)
    expected = map_images(other, seen, device=CPU)
    np.testing.assert_allclose(map_images(mapper, x, device=CPU), expected, atol=1e-6)


def test_maps_in_half_precision_are_float32_and_nearly_the_same():
    mapper, x = ErrorMapper(build(image_size=32), smoothing=2.0, flips="horizontal"), images(3)
    maps, rounded = (map_images(mapper, x, device=CPU, precision=p) for p in ("fp32", "bf16"))
    assert rounded.dtype == np.float32
    assert 0 < np.abs(maps - rounded).max() < 0.05
