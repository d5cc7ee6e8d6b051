"""How large a cache may become: what living processes hold, and what goes first.

Owns the files that say which entries a process holds; its lock says whether it lives. What is
needed although nobody holds it is the caller's to say.
"""

import logging
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

HOLDERS = "holders"  # below a cache: a list of keys and a lock for each process
GB = 10**9  # bytes
log = logging.getLogger(__name__)


class Entries(Protocol):
    """A cache, as far as this module knows it."""

    root: Path

    def entries(self) -> list[Path]:
        """The complete entries."""

    def forget(self, key: str) -> bool:
        """Remove an entry; False where it is held or being made."""


class Room:
    """A limit of a cache in bytes, for one process.

    `needed` gives the keys that must stay whoever asked for them; it is called when something has
    to go.
    """

    def __init__(self, limit: float, needed: Callable[[], set[str]] = set):
        self.limit, self._needed = limit, needed
        self._keys: Path | None = None
        self._lock: FileLock | None = None
        self._is_told = False

    def hold(self, root: Path, key: str) -> None:
        """Have no process drop an entry before this one ends."""
        if self._keys is None:
            folder, name = root / HOLDERS, f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
            folder.mkdir(exist_ok=True)
            self._lock = FileLock(folder / f"{name}.lock")
            self._lock.acquire()  # before there are keys: without a living lock they are nobody's
            self._keys = folder / f"{name}.keys"
        with self._keys.open("a") as keys:
            keys.write(f"{key}\n")

    def tidy(self, cache: Entries) -> list[str]:
        """Drop what nobody has asked for the longest until the cache keeps its limit; the keys."""
        ages = {path: path.stat().st_mtime for path in cache.entries()}
        sizes = {path: _size(path) for path in ages}
        total = sum(sizes.values())
        if total <= self.limit:
            return []
        stay, dropped = held(cache.root) | self._needed(), {}
        for path in sorted(ages, key=ages.get):
            if total > self.limit and path.name not in stay and cache.forget(path.name):
                dropped[path.name] = sizes[path]
                total -= sizes[path]
        self._tell(cache.root, dropped, total)
        return list(dropped)

    def _tell(self, root: Path, dropped: dict[str, int], total: int) -> None:
        limit = f"{self.limit / GB:g} GB"
        if dropped:
            log.warning(
                "The cache %s may hold %s: what nobody has asked for the longest was dropped "
                "(entries: %d, %.2g GB). What is needed of it is made again; CACHE_GB= sets the "
                "limit.",
                *(root, limit, len(dropped), sum(dropped.values()) / GB),
            )
        if total > self.limit and not self._is_told:
            self._is_told = True
            log.warning(
                "The cache %s may hold %s and holds %.2g GB, which running studies or the best "
                "trials need: raise CACHE_GB=, or run `make gc` once nothing runs.",
                *(root, limit, total / GB),
            )


def held(root: Path) -> set[str]:
    """The keys that living processes hold; lists of dead ones are removed."""
    keys: set[str] = set()
    for path in (root / HOLDERS).glob("*.keys"):
        lock = path.with_suffix(".lock")
        try:
            with FileLock(lock, timeout=0):
                path.unlink(missing_ok=True)
            lock.unlink(missing_ok=True)
        except (Timeout, RuntimeError):  # it lives; RuntimeError: it is this process
            keys |= set(path.read_text().split())
    return keys


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
