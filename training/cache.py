"""A folder of results that are made once: one entry a key, complete or not there at all.

Owns keys, locks between processes, checksums and what happens when the disk is full. Knows
nothing of what an entry holds. Machines may share it through a file system that has `flock`, as NFS
and Lustre do: the lock of a process ends with it, or with its machine's lease.
"""

import errno
import hashlib
import inspect
import json
import logging
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from filelock import FileLock, Timeout

from training.cache_room import Room, held

CHECKSUMS = "checksums.json"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
log = logging.getLogger(__name__)


class CacheError(RuntimeError):
    """The cache cannot be written; the message names the cure."""


class Cache:
    """Entries below `root`, each a folder named by its key."""

    def __init__(self, root: Path, room: Room | None = None):
        """`room`: how large it may become; without it nothing is ever dropped."""
        self.root, self._room = root, room

    def get_or_make(self, key: str, make: Callable[[Path], None]) -> Path:
        """The entry's folder; `make` fills it where it is missing or damaged.

        Processes that ask for the same key wait for the one that makes it. What `make` raises
        goes through and leaves no entry.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with self._lock(key):
                folder = self.root / key
                is_new = not self._intact(folder)
                if is_new:
                    self._make(folder, make)
                with suppress(PermissionError):  # it may be another user's
                    os.utime(folder)  # when it was last asked for
                if self._room:
                    self._room.hold(self.root, key)
            if self._room and is_new:
                self._room.tidy(self)
            return folder
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            raise CacheError(
                f"The disk is full: an entry of the cache {self.root} could not be written. "
                "Free some space, or delete that folder: what is needed of it is made again."
            ) from error

    def forget(self, key: str) -> bool:
        """Remove an entry, or what a killed process left of it; False where one is being made, or
        held by a process that lives."""
        try:
            with self._lock(key, timeout=0):
                if key in held(self.root):
                    return False
                folder = self.root / key
                unfinished = folder.with_suffix(".tmp")
                shutil.rmtree(unfinished, ignore_errors=True)
                if folder.exists():
                    folder.rename(unfinished)  # an entry is complete or not there at all
                    shutil.rmtree(unfinished)
                return True
        except Timeout:
            return False

    def entries(self) -> list[Path]:
        """The folders of all complete entries."""
        found = (path.parent for path in self.root.glob(f"*/{CHECKSUMS}"))
        return [path for path in found if path.suffix != ".tmp"]

    def _make(self, folder: Path, make: Callable[[Path], None]) -> None:
        self._remove_leftovers()
        shutil.rmtree(folder, ignore_errors=True)
        unfinished = folder.with_suffix(".tmp")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        try:
            make(unfinished)
            checksums = json.dumps(_checksums(unfinished), indent=1)
            (unfinished / CHECKSUMS).write_text(checksums)
            unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def _intact(self, folder: Path) -> bool:
        """Whether the entry is there and its files are those that were written."""
        if not folder.exists() and folder not in self.root.iterdir():
            return False  # listed too: NFS remembers for a while what had not been there
        try:
            written = json.loads((folder / CHECKSUMS).read_text())
        except (OSError, ValueError):
            written = None
        if written == _checksums(folder):
            return True
        log.warning("The cache entry %s is damaged and is made again.", folder)
        return False

    def _remove_leftovers(self) -> None:
        """Remove what killed processes left: a lock that can be taken has no living owner."""
        for unfinished in self.root.glob("*.tmp"):
            try:
                with self._lock(unfinished.stem, timeout=0):
                    shutil.rmtree(unfinished, ignore_errors=True)
            except Timeout:
                continue

    def _lock(self, key: str, timeout: float = -1) -> FileLock:
        return FileLock(self.root / f"{key}.lock", timeout=timeout)


def make_key(**parts: object) -> str:
    """32 hex characters that change with any of the parts (numbers, strings, lists, dicts)."""
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def code_digest(*modules: ModuleType) -> str:
    """32 hex characters over the source text of modules: results of other code are not reused."""
    sources = "\0".join(inspect.getsource(module) for module in modules)
    return hashlib.sha256(sources.encode()).hexdigest()[:32]


def _checksums(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CHECKSUMS)
    return {str(path.relative_to(folder)): _sha256(path) for path in files}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
