"""Images: where they come from, how they are pre-processed, grouped by copies and split."""

from training.data.dataset import DataError, Dataset
from training.data.preprocess import preprocess
from training.data.sources import load
from training.data.splits import Splits, leaked_share, leaks_by_class, split

__all__ = [
    "DataError",
    "Dataset",
    "Splits",
    "leaked_share",
    "leaks_by_class",
    "load",
    "preprocess",
    "split",
]
