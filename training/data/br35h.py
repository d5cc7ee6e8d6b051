"""Br35H's download from its author's public repository: resumed, checked, complete or not there.

Knows the archive's address and layout; not what is done with the images.
"""

import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

import requests
from rich.console import Console
from rich.progress import Progress

from training.data.dataset import DataError
from training.data.outlines import OUTLINES_FILE

URL = "https://codeload.github.com/AhmedHamada0/Brain-Tumor-Detection-Dataset/zip/HEAD"
N_A_CLASS = 1500
TIMEOUT = (4, 20)  # seconds to connect, seconds of silence
BLOCK = 1 << 14  # bytes; what a cut connection loses at most
MAX_UNPACKED = 1 << 30  # bytes; the set itself has a tenth of it
PARTIAL, RANGE_NOT_SATISFIABLE = 206, 416


class NoNetworkError(DataError):
    """The archive's server did not answer, or refused."""


def download(folder: Path, *, url: str, n_a_class: int = N_A_CLASS) -> None:
    """Fetch the archive and unpack yes/, no/ and the outlines to `folder`.

    A download that broke off is kept beside it and gone on with. `folder` appears when all of it
    is there and counted.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    archive = folder.with_name(f"{folder.name}.zip.part")
    _fetch(url, archive)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        unpacked = Path(scratch, folder.name)
        try:
            _unpack(archive, unpacked)
            _check_counts(unpacked, n_a_class)
        except (DataError, zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise DataError(
                f"The archive from {url} cannot be used: {error}. It was removed; run again to "
                "fetch it anew, or set BR35H_DIR to a copy of the data."
            ) from error
        finally:
            archive.unlink()
        unpacked.rename(folder)


def _fetch(url: str, archive: Path) -> None:
    """Download to `archive`, going on after the bytes it has where the server allows it."""
    have = archive.stat().st_size if archive.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    try:
        response = requests.get(url, headers=headers, stream=True, timeout=TIMEOUT)
        if response.status_code == RANGE_NOT_SATISFIABLE:  # there is nothing after what we have
            return
        response.raise_for_status()
    except requests.RequestException as error:
        raise NoNetworkError(f"{url} did not answer ({error})") from error
    with response:
        if response.status_code != PARTIAL:
            have = 0
        try:
            _write(response, archive, have)
        except requests.RequestException as error:
            raise DataError(
                f"The download from {url} broke off after {archive.stat().st_size:,} bytes; run "
                "again and it goes on from there."
            ) from error


def _write(response: requests.Response, archive: Path, have: int) -> None:
    length = response.headers.get("Content-Length")
    total = have + int(length) if length else None
    with (
        Progress(console=Console(stderr=True)) as progress,
        archive.open("ab" if have else "wb") as file,
    ):
        task = progress.add_task("Br35H", total=total, completed=have)
        for block in response.iter_content(BLOCK):
            file.write(block)
            progress.advance(task, len(block))


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack what we use of the archive, without the folder on top of it."""
    with zipfile.ZipFile(archive) as members:
        files = [member for member in members.infolist() if not member.is_dir()]
        if sum(member.file_size for member in files) > MAX_UNPACKED:
            raise DataError(f"it unpacks to more than {MAX_UNPACKED:,} bytes")
        for member in files:
            path = PurePosixPath(member.filename.replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
                raise DataError(f"its member {member.filename!r} would leave the folder")
            target = Path(*path.parts[1:])
            if target.parent in (Path("yes"), Path("no")) or target == OUTLINES_FILE:
                (folder / target).parent.mkdir(parents=True, exist_ok=True)
                (folder / target).write_bytes(members.read(member))


def _check_counts(folder: Path, n_a_class: int) -> None:
    for name in ("yes", "no"):
        n_found = len(list((folder / name).glob("*")))
        if n_found != n_a_class:
            raise DataError(f"it holds {n_found} files in {name}/ instead of {n_a_class}")
