"""A Dataset on disk: plain arrays and tables in one folder, so that it is prepared once.

Knows how to write and read such a folder; when an entry is made, locked and believed is the
cache's.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from training.data.dataset import Dataset


def save(dataset: Dataset, folder: Path) -> None:
    """Write the arrays and tables; name, pre-processing and digest go into one short table."""
    np.save(folder / "images.npy", dataset.images)
    np.save(folder / "masks.npy", np.packbits(dataset.masks[dataset.has_mask], axis=-1))
    dataset.manifest.to_csv(folder / "manifest.csv", index=False)
    dataset.left_out.to_csv(folder / "left_out.csv", index=False)
    about = {key: getattr(dataset, key) for key in ("name", "preprocess", "digest")}
    pd.DataFrame([about]).to_csv(folder / "about.csv", index=False)


def read(folder: Path) -> Dataset:
    """The Dataset that `save` wrote."""
    images = np.load(folder / "images.npy")
    manifest, left_out, about = (
        pd.read_csv(folder / f"{table}.csv", keep_default_na=False)
        for table in ("manifest", "left_out", "about")
    )
    has_mask = manifest["has_mask"].to_numpy(dtype=bool)
    masks = np.zeros(images.shape, dtype=bool)
    masks[has_mask] = np.unpackbits(np.load(folder / "masks.npy"), axis=-1).astype(bool)
    return Dataset(
        images=images,
        labels=manifest["label"].to_numpy(dtype=np.int64),
        groups=manifest["group"].to_numpy(dtype=np.int64),
        masks=masks,
        has_mask=has_mask,
        manifest=manifest,
        left_out=left_out,
        **about.iloc[0].astype(str).to_dict(),
    )
