"""Rows of 0 and 1, of which every sum is a whole number: exact in whatever order, 64 pixels at a
time. Knows nothing of the rows' use.
"""

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any

import numpy as np
from numba import njit


class Rows(ABC):
    """Rows of 0 and 1, wherever they are."""

    def __init__(self, rows: Any):
        """An array or a tensor (n, d)."""
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def n_columns(self) -> int:
        """How many pixels a row has."""
        return self._rows.shape[1]

    @property
    @abstractmethod
    def norms(self) -> np.ndarray:
        """How many pixels of each row are 1: int64 (n,)."""

    @abstractmethod
    def dots(self, weights: np.ndarray) -> np.ndarray:
        """The dot products of rows with whole numbers (k, d): int64 (k, n)."""

    @abstractmethod
    def add(self, moves: np.ndarray, total: np.ndarray) -> np.ndarray:
        """The total with each row added (1), taken away (-1) or left out (0): int32 (d,)."""

    @abstractmethod
    def take(self, chosen: np.ndarray) -> np.ndarray:
        """Some of the rows, uint8 (k, d)."""


class BitRows(Rows):
    """`Rows` on the processor, of masks, bool (n, h, w): as bytes and as bits."""

    def __init__(self, masks: np.ndarray):
        super().__init__(masks.reshape(len(masks), -1).view(np.uint8))
        self._bits = _pack(self._rows)

    @cached_property
    def norms(self) -> np.ndarray:
        """How many pixels of each row are 1: int64 (n,)."""
        return self.dots(np.ones((1, self.n_columns), dtype=np.int64))[0]

    def dots(self, weights: np.ndarray) -> np.ndarray:
        """The dot products of rows with whole numbers (k, d): int64 (k, n)."""
        return np.stack([_dots(self._bits, _planes(each)) for each in weights])

    def add(self, moves: np.ndarray, total: np.ndarray) -> np.ndarray:
        """The total with each row added (1), taken away (-1) or left out (0): int32 (d,)."""
        return _move_rows(self._rows, moves, total)

    def take(self, chosen: np.ndarray) -> np.ndarray:
        """Some of the rows, uint8 (k, d)."""
        return self._rows[chosen]


def _pack(rows: np.ndarray) -> np.ndarray:
    """Rows of 0 and 1, 64 to a word: uint64 (n, words), filled up with 0."""
    bytes_of_rows = np.packbits(rows, axis=1)
    n_bytes = bytes_of_rows.shape[1]
    packed = np.zeros((len(rows), n_bytes + -n_bytes % 8), dtype=np.uint8)
    packed[:, :n_bytes] = bytes_of_rows
    return packed.view(np.uint64)


def _planes(weights: np.ndarray) -> np.ndarray:
    """Whole numbers (d,) as packed binary digits, the ones first: uint64 (digits, words)."""
    return _pack(_digits(weights, max(1, int(weights.max()).bit_length())))


@njit(cache=True, nogil=True)
def _digits(weights, n_digits):
    """The binary digits of whole numbers (d,), the ones first: uint8 (digits, d)."""
    digits = np.empty((n_digits, len(weights)), dtype=np.uint8)
    for digit in range(n_digits):
        for i in range(len(weights)):
            digits[digit, i] = (weights[i] >> digit) & 1
    return digits


@njit(cache=True, nogil=True)
def _popcount(word):
    """How many bits are 1, in the form that the compiler knows as one instruction."""
    word -= (word >> np.uint64(1)) & np.uint64(0x5555555555555555)
    pairs = np.uint64(0x3333333333333333)
    word = (word & pairs) + ((word >> np.uint64(2)) & pairs)
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (word * np.uint64(0x0101010101010101)) >> np.uint64(56)


@njit(cache=True, nogil=True)
def _dots(bits, planes):
    """The dot products of packed rows with the whole numbers in the planes: int64 (n,).

    On one thread: a third of a millisecond is less than threads may wait for one another.
    """
    dots = np.zeros(len(bits), dtype=np.int64)
    for i in range(len(bits)):
        for digit in range(len(planes)):
            ones = np.uint64(0)
            for word in range(bits.shape[1]):
                ones += _popcount(bits[i, word] & planes[digit, word])
            dots[i] += np.int64(ones) << digit
    return dots


@njit(cache=True, nogil=True)
def _move_rows(rows, moves, total):
    """The total with each row added (1), taken away (-1) or left out (0): int32 (d,)."""
    moved = total.copy()
    for i in range(len(rows)):
        move = np.int32(moves[i])
        if move != 0:
            for j in range(len(moved)):
                moved[j] += move * np.int32(rows[i, j])
    return moved
