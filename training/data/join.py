"""Synthetic slices beside real ones: joined to a Dataset, in its training split alone.

Owns which of them training sees, and that their generator saw nothing of the validation and test
images. Knows nothing of how they were made.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from training.data.dataset import DataError, Dataset, digest
from training.data.folder import CLASS_FOLDERS
from training.data.splits import CLASS_NAMES, SHARES, Splits
from training.data.synthetic import CURE, SyntheticSet, as_rows, check_preprocess

MODES = ("synthetic", "mixed")


def join(
    dataset: Dataset, splits: Splits, synthetic: SyntheticSet, *, mode: str, scheme: str
) -> tuple[Dataset, Splits]:
    """The real images followed by synthetic ones, which `splits.train` names.

    `mode`: "synthetic" ones alone, which leaves the real training images in no part, or "mixed"
    with those. Of the classes, those that the scheme trains on. Real images keep their indices;
    validation and test stay as they are.
    Raises DataError where the set does not suit the data.
    """
    if mode not in MODES:
        raise DataError(f"mode must be one of {', '.join(MODES)}, got {mode!r}.")
    check_preprocess(synthetic, dataset.preprocess)
    classes = trained_classes(scheme)
    check_holds(synthetic, classes)
    check_no_leak(synthetic, dataset, splits, classes=classes)
    joined = _append(dataset, _only(synthetic, classes))
    added = np.arange(len(dataset.labels), len(joined.labels))
    real = splits.train if mode == "mixed" else splits.train[:0]
    return joined, splits._replace(train=np.concatenate([real, added]))


def trained_classes(scheme: str) -> tuple[int, ...]:
    """The labels of which a scheme's training split has images."""
    return tuple(label for label, shares in SHARES[scheme].items() if shares[0] > 0)


def check_holds(synthetic: SyntheticSet, classes: tuple[int, ...]) -> None:
    """Raise DataError unless the set has images of these classes."""
    for label in classes:
        if not (synthetic.labels == label).any():
            raise DataError(
                f"{synthetic.folder} holds no images of the class {CLASS_NAMES[label]}, which is "
                "trained on here. `make generate` with FOR=classifier makes both classes."
            )


def check_no_leak(
    synthetic: SyntheticSet, dataset: Dataset, splits: Splits, *, classes: tuple[int, ...]
) -> None:
    """Raise DataError unless the generator learned from training images of this split alone.

    Then near-copies are as far from its images as from the split's own training images: on a
    grouped split none of validation and test was seen, flipped or sharpened either.
    """
    folders = [name for name, label in CLASS_FOLDERS.items() if label in classes]
    seen = {checksum for name in folders for checksum in synthetic.origin.seen[name]}
    checksums = dataset.manifest["sha256"].to_numpy()
    trained, validated, tested = (set(checksums[part]) for part in splits)
    if not seen:
        raise DataError(f"{synthetic.folder} does not say which images its generator saw. {CURE}")
    if leaked := (seen - trained) & (tested | validated):
        raise DataError(
            f"The generator of {synthetic.folder} saw {len(leaked & tested)} test and "
            f"{len(leaked & validated)} validation images of this split ({dataset.name}): its "
            "images would leak them into training. Make a set with `make generate` under the same "
            "SEED and SPLIT, with FOR=detector where a detector is trained."
        )
    if unknown := seen - trained:
        raise DataError(
            f"The generator of {synthetic.folder} saw {len(unknown)} images that are not in "
            f"{dataset.name} as it is now, so nobody can say whether copies of them are tested "
            "on. Make a set of it with `make generate`."
        )


def _only(synthetic: SyntheticSet, classes: tuple[int, ...]) -> SyntheticSet:
    kept = np.flatnonzero(np.isin(synthetic.labels, classes))
    return replace(
        synthetic,
        files=[synthetic.files[i] for i in kept],
        sha256=[synthetic.sha256[i] for i in kept],
        images=synthetic.images[kept],
        labels=synthetic.labels[kept],
    )


def _append(dataset: Dataset, synthetic: SyntheticSet) -> Dataset:
    """The Dataset with the synthetic images behind its own, each a group of its own."""
    n = len(synthetic.labels)
    groups = dataset.groups.max() + 1 + np.arange(n)
    files = [f"synthetic/{synthetic.name}/{file}" for file in synthetic.files]
    images = np.concatenate([dataset.images, synthetic.images])
    labels = np.concatenate([dataset.labels, synthetic.labels])
    all_groups = np.concatenate([dataset.groups, groups])
    return replace(
        dataset,
        images=images,
        labels=labels,
        groups=all_groups,
        masks=np.concatenate([dataset.masks, np.zeros_like(synthetic.images, dtype=bool)]),
        has_mask=np.concatenate([dataset.has_mask, np.zeros(n, dtype=bool)]),
        manifest=pd.concat(
            [dataset.manifest, as_rows(synthetic, files, groups)], ignore_index=True
        ),
        digest=digest(images, labels, all_groups, preprocess=dataset.preprocess),
    )
