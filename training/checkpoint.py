"""Arrays and weights on disk, as safetensors: nothing that is read here can run code.

Knows nothing of what the arrays mean. Bytes are made in memory and written by Python, so that a
full disk is an `OSError` with its number.
"""

from pathlib import Path

import numpy as np
import safetensors.numpy
import safetensors.torch
from torch import nn


def save_weights(module: nn.Module, path: Path) -> None:
    """Write the module's parameters and buffers."""
    weights = {name: value.cpu().contiguous() for name, value in module.state_dict().items()}
    path.write_bytes(safetensors.torch.save(weights))


def load_weights(module: nn.Module, path: Path) -> None:
    """Read parameters and buffers into a module of the same structure."""
    module.load_state_dict(safetensors.torch.load_file(path))


def save_arrays(arrays: dict[str, np.ndarray], path: Path) -> None:
    """Write named arrays."""
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    path.write_bytes(safetensors.numpy.save(arrays))  # which takes the memory as it lies


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read named arrays."""
    return safetensors.numpy.load_file(path)
