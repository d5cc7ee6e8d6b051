"""One file with a folder's contents: what it begins with, checksums at its end, and how it is read.

Owns the format and every distrust of an archive that somebody else may have written. Knows nothing
of studies.
"""

import gzip
import hashlib
import io
import json
import os
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from studies.study import StudyError

FORMAT = 1
HEADER, CHECKSUMS = "backup.json", "checksums.json"  # the first member and the last
A_HEADER = 1 << 20  # bytes that are read of it at most
LEVEL = 1  # of gzip: weights do not get smaller however long one tries
SUFFIXES = (".tar.gz", ".tar")
UNREADABLE = (tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile, ValueError, KeyError)


class HashedReader:
    """A file that is hashed while somebody else reads it."""

    def __init__(self, file: BinaryIO):
        self._file, self._digest = file, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """As of any file."""
        block = self._file.read(size)
        self._digest.update(block)
        return block

    @property
    def sha256(self) -> str:
        """Of all that was read."""
        return self._digest.hexdigest()


def write_archive(path: Path, header: dict[str, Any], files: Iterable[tuple[str, Path]]) -> int:
    """Write named files into a new archive, and read it once more to see that they are in it; how
    many they are. It is written beside and then renamed; what disappears meanwhile is left out.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with tarfile.open(unfinished, _mode("w", path), **_level(path)) as tar:
            _add_bytes(tar, HEADER, json.dumps({"format": FORMAT, **header}, indent=1).encode())
            checksums = {
                name: digest
                for name, source in files
                if (digest := _add_file(tar, name, source)) is not None
            }
            _add_bytes(tar, CHECKSUMS, json.dumps(checksums, indent=0).encode())
        check_archive(unfinished)
        unfinished.rename(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return len(checksums)


def _mode(mode: str, path: Path) -> str:
    return f"{mode}:gz" if path.name.endswith(".gz") else mode


def _level(path: Path) -> dict[str, int]:
    return {"compresslevel": LEVEL} if path.name.endswith(".gz") else {}


def _add_bytes(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _add_file(tar: tarfile.TarFile, name: str, source: Path) -> str | None:
    try:
        file = source.open("rb")
    except FileNotFoundError:
        return None
    with file:
        status = os.fstat(file.fileno())
        member = tarfile.TarInfo(name)
        member.size, member.mtime = status.st_size, status.st_mtime
        reader = HashedReader(file)
        tar.addfile(member, reader)  # raises where the file has become shorter
        return reader.sha256


def read_header(path: Path) -> dict[str, Any]:
    """What an archive says of itself; refused where it is none, or a later version's."""
    with _readable(path) as tar:
        member = tar.next()
        header = {}
        if member is not None and member.isreg() and member.name == HEADER:
            header = json.loads(tar.extractfile(member).read(A_HEADER))
    if not isinstance(header, dict) or not isinstance(header.get("format"), int):
        raise StudyError(f"{path} is not an archive that `make backup` wrote.")
    if header["format"] > FORMAT:
        raise StudyError(
            f"{path} was written by a later version (format {header['format']}, this one reads "
            f"{FORMAT}): update this checkout first."
        )
    return header


def check_archive(path: Path) -> None:
    """Read every file of an archive; refused where one is not what was written."""
    _compare(path, _read_all(path, None))


def unpack(path: Path, folder: Path) -> None:
    """Write every file of an archive below a new folder, and check them."""
    folder.mkdir(parents=True)
    _compare(path, _read_all(path, folder))


def _read_all(path: Path, folder: Path | None) -> tuple[dict[str, str], dict[str, str]]:
    """The checksums of what was found and of what was written."""
    found: dict[str, str] = {}
    written = None
    with _readable(path) as tar:
        for member in tar:
            if written is not None or member.name in found:
                raise StudyError(f"{path} is damaged: {member.name} is in it where nothing may be.")
            _refuse_escape(path, member)
            reader = HashedReader(tar.extractfile(member))
            if member.name == CHECKSUMS:
                written = json.loads(reader.read())
            elif member.name == HEADER or folder is None:
                _drain(reader)
            else:
                _write(reader, folder / member.name, member.mtime)
            if member.name not in (HEADER, CHECKSUMS):
                found[member.name] = reader.sha256
    if written is None:
        raise StudyError(f"{path} is damaged: its end is missing. Take another backup.")
    return found, written


def _compare(path: Path, checksums: tuple[dict[str, str], dict[str, str]]) -> None:
    found, written = checksums
    wrong = [name for name in {**written, **found} if written.get(name) != found.get(name)]
    if wrong:
        raise StudyError(
            f"{path} is damaged: {len(wrong)} of {len(written)} files are not what was written, "
            f"{wrong[0]} among them. Take another backup."
        )


def _refuse_escape(path: Path, member: tarfile.TarInfo) -> None:
    """Only plain files, and only below the folder that they are unpacked to."""
    name = PurePosixPath(member.name)
    tame = member.isreg() and member.name == str(name) and "\\" not in member.name
    if not tame or name.is_absolute() or ".." in name.parts or name.parts[0].endswith(":"):
        raise StudyError(
            f"{path} would write outside of its folder, or links: {member.name!r}. `make backup` "
            "writes no such archive; do not use it."
        )


def _drain(reader: HashedReader) -> None:
    while reader.read(1 << 20):
        pass


def _write(reader: HashedReader, path: Path, mtime: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        while block := reader.read(1 << 20):
            file.write(block)
    os.utime(path, (mtime, mtime))


@contextmanager
def _readable(path: Path) -> Iterator[tarfile.TarFile]:
    if not path.is_file():
        raise StudyError(f"There is no archive {path}: FROM= must name one of `make backup`.")
    try:
        with tarfile.open(path, "r:*") as tar:
            yield tar
    except StudyError:
        raise
    except UNREADABLE as error:
        raise StudyError(
            f"{path} is damaged, or no archive of `make backup` ({error}). Take another one."
        ) from error
