"""Arrays and weights come back as they were, however they lay in memory."""

import numpy as np
import pytest
import torch

from training.checkpoint import load_arrays, load_weights, save_arrays, save_weights

ARRAYS = {
    "transposed": np.arange(6.0).reshape(2, 3).T,
    "stepped": np.arange(10)[::-2],
    "a number": np.array(0.25),
    "halves": np.ones((2, 2), np.float16),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_comes_back_as_it_was(tmp_path, name):
    save_arrays({"a": ARRAYS[name]}, tmp_path / "arrays")
    read = load_arrays(tmp_path / "arrays")["a"]
    np.testing.assert_array_equal(read, ARRAYS[name])
    assert read.dtype == ARRAYS[name].dtype and read.shape == ARRAYS[name].shape


def test_weights_in_another_memory_format_come_back(tmp_path):
    first, second = torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(3, 4, 3)
    save_weights(first.to(memory_format=torch.channels_last), tmp_path / "weights")
    load_weights(second, tmp_path / "weights")
    assert torch.equal(first.weight, second.weight)
