"""Calculations on the processor in several streams, a core each."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Given, Made = TypeVar("Given"), TypeVar("Made")


def in_streams(work: Callable[[Given], Made], parts: Sequence[Given]) -> list[Made]:
    """What `work` makes of each part, in order: as many at once as torch has threads, each on one.

    Layers of a few slices are too short to be shared by threads that wait for one another, above
    all where other programs want the cores too. Gradients are taken or not as by the caller.
    """
    n_threads = torch.get_num_threads()
    n = min(n_threads, len(parts))
    if n <= 1:
        return [work(part) for part in parts]
    alike = (torch.is_grad_enabled(),)
    try:
        with ThreadPoolExecutor(n, initializer=_begin, initargs=alike) as pool:
            return list(pool.map(work, parts))
    finally:
        torch.set_num_threads(n_threads)  # a thread's own number is also that of threads to come


def _begin(with_gradients: bool) -> None:
    torch.set_num_threads(1)
    torch.set_grad_enabled(with_gradients)
