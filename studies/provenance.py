"""Where a run comes from: the commit, the changes on top of it, and the packages it ran with."""

import hashlib
import subprocess
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
CODE = ("models", "training", "mlflow_server", "studies")  # where the folders of code lie
NO_CHANGES = "none"


class Commit(NamedTuple):
    """The checked-out commit; `diff` is what the working tree adds to it."""

    hash: str
    diff: str

    @property
    def is_dirty(self) -> bool:
        """Whether the tree differs from the commit."""
        return bool(self.diff)

    @property
    def changes(self) -> str:
        """What names the diff: equal names, equal changes."""
        return digest(self.diff) if self.is_dirty else NO_CHANGES


def read_commit() -> Commit:
    """The commit of this code; `unknown` where it is not a git checkout."""
    head = _git("rev-parse", "HEAD")
    if head is None:
        return Commit("unknown", "")
    untracked = (_git("ls-files", "--others", "--exclude-standard") or "").splitlines()
    new = [_as_new(file) if file.endswith(".py") else f"untracked: {file}\n" for file in untracked]
    return Commit(head.strip(), (_git("diff", "HEAD") or "") + "".join(new))


def same_code(one: str, other: str) -> bool | None:
    """Whether two commits have the same code; None where git does not know one of them."""
    changed = _git("diff", "--name-only", one, other, "--", *CODE)
    return None if changed is None else not changed


def digest(text: str) -> str:
    """16 hex characters that tell texts apart."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _as_new(file: str) -> str:
    """A file that git does not know yet, as a patch would add it."""
    return _git("diff", "--no-index", "--", "/dev/null", file, differs=1) or ""


def _git(*arguments: str, differs: int = 0) -> str | None:
    """What git says; None where it fails. `differs` is the status that also is a success."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout if done.returncode in (0, differs) else None


@cache  # they do not change while a process runs
def installed_packages() -> str:
    """Every installed package with its version, one a line, as pip would freeze them."""
    return "".join(sorted({f"{one.name}=={one.version}\n" for one in distributions()}))
