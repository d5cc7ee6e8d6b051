"""Whether a generator gives its training images away: are its samples too near to them?

A sample's distance to the nearest training image is held against that to the nearest held-out one,
and the ratio of the two against what real images have that neither set holds. So blurred samples,
which are near to everything, are not taken for copies. Distances are the shortest over four flips.
Training and held-out images must not share near-copies (SPLIT=grouped), or nothing can be seen.
Knows no generator.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numpy as np
from scipy.stats import hypergeom

from models.error_mapper import FLIPS, Flip
from training.data.copies import MIN_CORRELATION, thumbnail
from training.data.dataset import DataError
from training.data.preprocess import crop, frame
from training.fidelity import Judge

TURNS = FLIPS["all"]
COARSE = 16  # px: coarse enough that blurred or noisy copies stay copies (measured on Br35H)
EXPECTED_SHARE = 0.05  # of real images of other patients that are called memorised; our choice
# What a study may ask of `privacy`: our choice. On Br35H (train and val split anew, four times a
# class) images of other patients have 0.94 or more, a generator whose samples are copies by a
# fifth 0.81 or less, one that returns noisy, blurred, shifted or fainter training images 0.2 or
# less; Gaussian samples of principal components have 1.
PRIVACY_FLOOR = 0.85
COPY_DISTANCE = float(np.sqrt(2 - 2 * MIN_CORRELATION))  # between rows of length 1
MIN_GROUPS = 4  # our choice: with fewer, one patient decides
TINY = 1e-6  # keeps ratios finite for exact copies

# uint8 (n, h, w) and k flips -> float32 (k, n, d)
Describe = Callable[[np.ndarray, Sequence[Flip]], np.ndarray]


class Neighbors(NamedTuple):
    """Row i: what is nearest to sample i, in the space in which it looks most memorised.

    Distances are in units of the distance that a real image of another patient has to its nearest
    training image (median): 1 is as far as one should be, 0 a copy.
    """

    train: np.ndarray  # int64 (n,), index into the training images
    held_out: np.ndarray  # int64 (n,), index into the held-out images
    to_train: np.ndarray  # (n,)
    to_held_out: np.ndarray  # (n,)
    train_flip: np.ndarray  # int64 (n,), index into TURNS: how the neighbour is to be turned
    held_out_flip: np.ndarray  # int64 (n,)
    memorized: np.ndarray  # bool (n,): nearer than 95 % of real images are
    suspicion: np.ndarray  # (n,): the higher, the nearer; above 0 is memorised

    def closest(self, k: int) -> np.ndarray:
        """The k samples that look most memorised, the worst first."""
        return np.argsort(-self.suspicion, kind="stable")[:k]


@dataclass(frozen=True)
class Memorization:
    """`metrics`, of which `privacy` in [0, 1] can be held to a floor, and the nearest real images.

    `privacy` is 1 where there is no evidence of copying, and 0 where every sample is a copy.
    """

    metrics: dict[str, float]
    neighbors: Neighbors = field(repr=False)


class _Found(NamedTuple):
    """Samples' distances in one space."""

    to_train: np.ndarray  # (n, train images)
    to_held_out: np.ndarray  # (n, held-out images)
    train_flips: np.ndarray  # which flip of the sample is nearest, as to_train
    held_out_flips: np.ndarray

    @property
    def ratio(self) -> np.ndarray:
        """Logarithm of the nearest distances' ratio, (n,): negative is nearer to training."""
        nearest = self.to_train.min(axis=1), self.to_held_out.min(axis=1)
        return np.log(nearest[0] + TINY) - np.log(nearest[1] + TINY)


@dataclass(frozen=True)
class _Space:
    """One way to describe images, with what real images have there."""

    describe: Describe
    train: np.ndarray  # (k, d)
    held_out: np.ndarray  # (m, d)
    low: float  # ratio below which only 5 % of real images of other groups are
    middle: float  # their median ratio
    unit: float  # their median distance to the nearest training image

    def find(self, described: np.ndarray) -> _Found:
        to_train, train_flips = _distances(described, self.train)
        to_held_out, held_out_flips = _distances(described, self.held_out)
        return _Found(to_train, to_held_out, train_flips, held_out_flips)


@dataclass(frozen=True)
class MemorizationTest:
    """The real side of the comparison, made once for a class and asked about many generators."""

    train_groups: np.ndarray = field(repr=False)
    held_out_groups: np.ndarray = field(repr=False)
    spaces: dict[str, _Space] = field(repr=False)

    @classmethod
    def of(
        cls,
        train: np.ndarray,
        held_out: np.ndarray,
        *,
        train_groups: np.ndarray,
        held_out_groups: np.ndarray,
        judge: Judge | None = None,
        seed: int = 0,
    ) -> "MemorizationTest":
        """With images uint8 (n, h, w) of one class and their groups of near-copies.

        Three spaces: `head`, in which near-copies are found (32 px of the head's box), `residual`
        (16 px of the frame, less the average slice), and the judge's features where one is given.
        `seed` draws the image that stands for a group where real images are measured themselves.
        """
        train_groups, held_out_groups = np.asarray(train_groups), np.asarray(held_out_groups)
        _check_groups(train_groups, held_out_groups)
        images = np.concatenate([train, held_out])
        groups = np.concatenate([train_groups, held_out_groups])
        average = _average_slice(images, groups)
        describes: dict[str, Describe] = {
            "head": _describe_head,
            "residual": lambda images, turns: _describe_residual(images, turns, average),
        }
        if judge is not None:
            describes[judge.name] = _in_features(judge, train)
        shown = _one_of_each(groups, seed)
        spaces = {
            name: _space(describe, images, groups, n_train=len(train), shown=shown)
            for name, describe in describes.items()
        }
        return cls(train_groups, held_out_groups, spaces)

    def ask(self, samples: np.ndarray) -> Memorization:
        """Measure samples uint8 (n, h, w) of a generator that was trained on the training images.

        `memorization_excess_share`, in each space and the largest of them: samples nearer to
        training than 95 % of real images are, less the 5 % to be expected, in [0, 1].
        `memorization_nearer_to_training`: expected 0.5, both sets drawn down to equally many
        groups. `memorization_distance_ratio`: median, 1 for real images. `memorization_copies`:
        near-copies of a training image as the data's groups are made; `_held_out` the same of
        held-out ones. `privacy`: 1 less the largest excess share.
        """
        found = {
            name: space.find(space.describe(samples, TURNS)) for name, space in self.spaces.items()
        }
        suspicion = {name: self.spaces[name].low - found[name].ratio for name in found}
        excess = {name: _excess(values > 0) for name, values in suspicion.items()}
        residual, head = found["residual"], found["head"]
        middle = self.spaces["residual"].middle
        metrics = {
            "privacy": 1 - max(excess.values()),
            "memorization_excess_share": max(excess.values()),
            **{f"memorization_excess_share_{name}": share for name, share in excess.items()},
            "memorization_nearer_to_training": self._nearer_to_training(residual),
            "memorization_distance_ratio": float(np.exp(np.median(residual.ratio) - middle)),
            "memorization_copies": _share_of_copies(head.to_train),
            "memorization_copies_held_out": _share_of_copies(head.to_held_out),
        }
        return Memorization(metrics, self._neighbors(found, suspicion))

    def _nearer_to_training(self, found: _Found) -> float:
        to_train = _nearest_of_groups(found.to_train, self.train_groups)
        to_held_out = _nearest_of_groups(found.to_held_out, self.held_out_groups)
        strictly = _chance_of_nearer(to_train, to_held_out)
        return float((strictly + 1 - _chance_of_nearer(to_held_out, to_train)).mean() / 2)

    def _neighbors(self, found: dict[str, _Found], suspicion: dict[str, np.ndarray]) -> Neighbors:
        names = list(found)
        worst = np.argmax([suspicion[name] for name in names], axis=0)  # (n,), a space each
        rows = np.arange(len(worst))
        columns = {name: _nearest(found[name], self.spaces[name].unit) for name in names}
        chosen = [
            np.stack([columns[name][part] for name in names])[worst, rows] for part in range(6)
        ]
        worst_suspicion = np.stack([suspicion[name] for name in names])[worst, rows]
        return Neighbors(*chosen, worst_suspicion > 0, worst_suspicion)


def memorization(
    samples: np.ndarray,
    train: np.ndarray,
    held_out: np.ndarray,
    *,
    train_groups: np.ndarray,
    held_out_groups: np.ndarray,
    judge: Judge | None = None,
    seed: int = 0,
) -> Memorization:
    """`MemorizationTest.of(...).ask(samples)`, for one generator."""
    test = MemorizationTest.of(
        train,
        held_out,
        train_groups=train_groups,
        held_out_groups=held_out_groups,
        judge=judge,
        seed=seed,
    )
    return test.ask(samples)


def turned(images: np.ndarray, flips: np.ndarray) -> np.ndarray:
    """Images (n, h, w), each under its flip (index into TURNS): neighbours as samples show them."""
    return np.stack([np.flip(i, TURNS[flip]) for i, flip in zip(images, flips, strict=True)])


def _space(
    describe: Describe, images: np.ndarray, groups: np.ndarray, *, n_train: int, shown: np.ndarray
) -> _Space:
    """Real images stand for a generator that copies nothing: each without its own group."""
    described = describe(images, TURNS[:1])[0]
    train, held_out = described[:n_train], described[n_train:]
    distances, _ = _distances(describe(images[shown], TURNS), described)
    distances[groups[shown][:, None] == groups] = np.inf
    nearest = distances[:, :n_train].min(axis=1), distances[:, n_train:].min(axis=1)
    ratio = np.log(nearest[0] + TINY) - np.log(nearest[1] + TINY)
    low, middle = np.quantile(ratio, [EXPECTED_SHARE, 0.5])
    return _Space(describe, train, held_out, low, middle, float(np.median(nearest[0])) or 1.0)


def _describe_head(images: np.ndarray, turns: Sequence[Flip]) -> np.ndarray:
    """The head's box at 32 px, as the data's near-copies are found."""
    return _flipped_rows(np.stack([thumbnail(_head(image)) for image in images]), turns)


def _head(image: np.ndarray) -> np.ndarray:
    """What a slice shows of the head; all of it where there is none to be found."""
    try:
        return crop(image, frame(image).box)
    except DataError:
        return image


def _describe_residual(
    images: np.ndarray, turns: Sequence[Flip], average: np.ndarray
) -> np.ndarray:
    """What of an image is not the average slice, whatever its contrast and strength.

    The average is projected out, not subtracted: a copy that is fainter, of another contrast or
    drawn towards the average has the same direction.
    """
    rows = _flipped_rows(_coarse(images), turns)
    common = _unit_rows(average.reshape(1, -1))[0]  # (d,), the same under all flips
    return _unit_rows(rows - (rows @ common)[..., None] * common)


def _in_features(judge: Judge, train: np.ndarray) -> Describe:
    """The judge's features, each scaled by its spread over the training images."""
    spread = judge.features(train).std(axis=0)
    spread = np.where(spread > TINY, spread, 1.0)

    def describe(images: np.ndarray, turns: Sequence[Flip]) -> np.ndarray:
        shown = [np.ascontiguousarray(np.flip(images, turn)) for turn in turns]
        return np.stack([judge.features(turn) / spread for turn in shown])

    return describe


def _coarse(images: np.ndarray) -> np.ndarray:
    size = (COARSE, COARSE)
    small = [cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in images]
    return np.stack(small).astype(np.float32)


def _average_slice(images: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The mean over groups and flips, float32 (16, 16)."""
    coarse = _coarse(images)
    mean = np.mean([coarse[groups == group].mean(axis=0) for group in np.unique(groups)], axis=0)
    return np.mean([np.flip(mean, turn) for turn in TURNS], axis=0)


def _flipped_rows(images: np.ndarray, turns: Sequence[Flip]) -> np.ndarray:
    """The images under each flip as rows (flips, n, pixels), see `_unit_rows`."""
    rows = np.stack([np.flip(images, turn).reshape(len(images), -1) for turn in turns])
    return _unit_rows(rows.astype(np.float32))


def _unit_rows(rows: np.ndarray) -> np.ndarray:
    """Mean 0 and length 1 along the last axis: distances are then those of correlations."""
    rows = rows - rows.mean(axis=-1, keepdims=True)
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.where(lengths > TINY, rows / np.maximum(lengths, TINY), 0)


def _distances(described: np.ndarray, real: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance (n, m) of the nearest of four flips (4, n, d) to (m, d), and which flip it is."""
    lengths = (real**2).sum(axis=1)
    squared = [(d**2).sum(axis=1)[:, None] + lengths - 2 * d @ real.T for d in described]
    return np.sqrt(np.maximum(np.min(squared, axis=0), 0)), np.argmin(squared, axis=0)


def _nearest(found: _Found, unit: float) -> tuple[np.ndarray, ...]:
    """The first six columns of Neighbors, in one space."""
    rows = np.arange(len(found.to_train))
    train, held_out = found.to_train.argmin(axis=1), found.to_held_out.argmin(axis=1)
    return (
        train,
        held_out,
        found.to_train[rows, train] / unit,
        found.to_held_out[rows, held_out] / unit,
        found.train_flips[rows, train],
        found.held_out_flips[rows, held_out],
    )


def _nearest_of_groups(distances: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The distance to the nearest image of each group, (n, groups)."""
    return np.stack([distances[:, groups == g].min(axis=1) for g in np.unique(groups)], axis=1)


def _chance_of_nearer(here: np.ndarray, there: np.ndarray) -> np.ndarray:
    """How likely the nearest of k groups here is nearer than that of k there, (n,).

    k is the smaller number of groups; the larger set's are drawn, which is a matter of counting.
    """
    n, m = here.shape[1], there.shape[1]
    if n >= m:
        nearer = (here < there.min(axis=1, keepdims=True)).sum(axis=1)
        return 1 - hypergeom.pmf(0, n, nearer, m)
    nearer = (there <= here.min(axis=1, keepdims=True)).sum(axis=1)
    return hypergeom.pmf(0, m, nearer, n)


def _share_of_copies(distances: np.ndarray) -> float:
    return float((distances.min(axis=1) <= COPY_DISTANCE).mean())


def _excess(is_near: np.ndarray) -> float:
    """What a share has beyond the expected one, in [0, 1]."""
    return max(0.0, float(is_near.mean() - EXPECTED_SHARE) / (1 - EXPECTED_SHARE))


def _one_of_each(groups: np.ndarray, seed: int) -> np.ndarray:
    """An image of each group, by chance."""
    shuffled = np.random.default_rng(seed).permutation(len(groups))
    return shuffled[np.unique(groups[shuffled], return_index=True)[1]]


def _check_groups(train_groups: np.ndarray, held_out_groups: np.ndarray) -> None:
    shared = np.intersect1d(train_groups, held_out_groups)
    if len(shared):
        raise DataError(
            f"{len(shared)} groups of near-copies are in training and held-out images: a copy of "
            "the one is a copy of the other. Take SPLIT=grouped."
        )
    for name, groups in (("training", train_groups), ("held-out", held_out_groups)):
        if len(np.unique(groups)) < MIN_GROUPS:
            raise DataError(
                f"Memorisation needs {MIN_GROUPS} groups of {name} images or more, "
                f"got {len(np.unique(groups))}."
            )
