"""Train, validation and test sets, and how much of a test set leaks into the other two.

Two protocols: `grouped` keeps near-copies together; `paper` draws single images at random, as the
paper does, for comparison. Knows labels and groups only, never an image.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from training.data.dataset import DataError, Dataset

# Shares of a class in (train, val, test). The paper, sections on BrainCVAE and BrainCNN.
SHARES = {
    "detector": {0: (0.75, 0.10, 0.15), 1: (0.0, 0.40, 0.60)},
    "classifier": {0: (0.70, 0.20, 0.10), 1: (0.70, 0.20, 0.10)},
}
PROTOCOLS = ("grouped", "paper")
MIN_GROUPS = 10  # our choice: with fewer, a part of 10 % would hold no whole group
MAX_GROUP_SHARE = 0.2  # our choice: one slice and its copies shall not make up a small test set
CLASS_NAMES = {0: "no tumour (no/)", 1: "tumour (yes/)"}


class Splits(NamedTuple):
    """Indices into a Dataset, sorted; together they name every image once."""

    train: np.ndarray  # int64
    val: np.ndarray  # int64
    test: np.ndarray  # int64


def split(
    labels: np.ndarray,
    groups: np.ndarray,
    *,
    protocol: str = "grouped",
    scheme: str = "detector",
    seed: int = 0,
) -> Splits:
    """Split each class by the scheme's shares: whole groups, or single images ("paper").

    A group is indivisible: a grouped part exceeds its share of a class by less than the size of
    the largest group, in practice by a few images.
    """
    if protocol not in PROTOCOLS:
        raise DataError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {protocol!r}.")
    if scheme not in SHARES:
        raise DataError(f"scheme must be one of {', '.join(SHARES)}, got {scheme!r}.")
    labels, groups = np.asarray(labels), np.asarray(groups)
    check_classes(labels, groups)
    rng = np.random.default_rng(seed)
    parts: list[list[np.ndarray]] = [[], [], []]
    for label, shares in SHARES[scheme].items():
        members = np.flatnonzero(labels == label)
        units = groups[members] if protocol == "grouped" else members
        for part, indices in zip(parts, _share_out(members, units, shares, rng), strict=True):
            part.append(indices)
    return Splits(*(np.sort(np.concatenate(part)) for part in parts))


def check_classes(labels: np.ndarray, groups: np.ndarray) -> None:
    """Raise DataError unless both classes hold enough groups to be split."""
    for label, name in CLASS_NAMES.items():
        n_groups = len(np.unique(groups[labels == label]))
        if n_groups == 0:
            raise DataError(f"The class {name} holds no usable image; add some to its folder.")
        if n_groups < MIN_GROUPS:
            raise DataError(
                f"The class {name} needs at least {MIN_GROUPS} groups of near-copies to be split, "
                f"got {n_groups}; add images of other patients."
            )


def _share_out(
    members: np.ndarray, units: np.ndarray, shares: tuple[float, ...], rng: np.random.Generator
) -> list[np.ndarray]:
    """Deal whole units (groups or single images) of one class to parts of the given shares.

    From the largest unit to the smallest, each falls to a part by chance, in proportion to what
    the parts still miss, among those of whose missing images it is a small share; where there is
    none, to the one that misses most. The small units come last and even out what is left.
    """
    _, unit_of, sizes = np.unique(units, return_inverse=True, return_counts=True)
    missing = np.array(shares) * len(members)
    part_of = np.empty(len(sizes), dtype=np.int64)
    for unit in np.argsort(-sizes, kind="stable"):
        room = np.where(sizes[unit] <= MAX_GROUP_SHARE * missing, missing, 0.0)
        if room.any():
            part_of[unit] = rng.choice(len(shares), p=room / room.sum())
        else:
            part_of[unit] = np.argmax(missing)
        missing[part_of[unit]] -= sizes[unit]
    return [members[part_of[unit_of] == part] for part in range(len(shares))]


def leaked_share(splits: Splits, groups: np.ndarray) -> float:
    """Share of the test images that have a near-copy in train or validation."""
    return float(_leaks(splits, groups).mean())


def leaks_by_class(splits: Splits, labels: np.ndarray, groups: np.ndarray) -> dict[int, float]:
    """The leaked share of each class, for the classes that the test set holds."""
    leaks, test_labels = _leaks(splits, groups), np.asarray(labels)[splits.test]
    return {
        int(label): float(leaks[test_labels == label].mean()) for label in np.unique(test_labels)
    }


def _leaks(splits: Splits, groups: np.ndarray) -> np.ndarray:
    groups = np.asarray(groups)
    return np.isin(groups[splits.test], groups[np.concatenate([splits.train, splits.val])])


def manifest_with_splits(dataset: Dataset, splits: Splits) -> pd.DataFrame:
    """The manifest with a column `split`: train, val or test, or unused."""
    part_of = np.full(len(dataset.labels), "unused", dtype=object)
    for name, indices in splits._asdict().items():
        part_of[indices] = name
    return dataset.manifest.assign(split=part_of)
