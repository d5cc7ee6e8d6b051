"""The one type that carries images through the house, and the error every part of the data raises.

Knows nothing of files, pre-processing or splits.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import pandas as pd


class DataError(ValueError):
    """The data cannot be used as it is; the message says why and what would cure it."""


@dataclass(frozen=True)
class Dataset:
    """Pre-processed slices with what is known of each; row i of every member is the same image."""

    name: str  # "br35h", "phantom" or the folder's name
    images: np.ndarray  # uint8 (n, 128, 128)
    labels: np.ndarray  # int64 (n,), 0 no tumour, 1 tumour
    groups: np.ndarray  # int64 (n,), near-copies share a number
    masks: np.ndarray  # bool (n, 128, 128), False where no outline is known
    has_mask: np.ndarray  # bool (n,)
    manifest: pd.DataFrame  # a row an image: file, label, sha256, width, height, group, ...
    left_out: pd.DataFrame  # file, reason: found, but not usable
    preprocess: str  # "head" or "paper"
    digest: str  # 32 hex characters, see `digest`


def digest(images: np.ndarray, labels: np.ndarray, groups: np.ndarray, *, preprocess: str) -> str:
    """Fingerprint of what a detector can see of the data: 32 hex characters."""
    fingerprint = hashlib.sha256(preprocess.encode())
    for array in (images, labels, groups):
        fingerprint.update(f"{array.dtype} {array.shape}".encode())
        fingerprint.update(np.ascontiguousarray(array))
    return fingerprint.hexdigest()[:32]
