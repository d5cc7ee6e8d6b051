"""Where a run comes from: the commit, the changes on top of it, and the packages it ran with."""

import subprocess
from importlib.metadata import distributions
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent


class Commit(NamedTuple):
    """The checked-out commit; `diff` is what the working tree adds to it."""

    hash: str
    diff: str

    @property
    def is_dirty(self) -> bool:
        """Whether the tree differs from the commit."""
        return bool(self.diff)


def read_commit() -> Commit:
    """The commit of this code; `unknown` where it is not a git checkout."""
    head = _git("rev-parse", "HEAD")
    if head is None:
        return Commit("unknown", "")
    untracked = _git("ls-files", "--others", "--exclude-standard") or ""
    return Commit(head.strip(), (_git("diff", "HEAD") or "") + untracked)


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def installed_packages() -> str:
    """Every installed package with its version, one a line, as pip would freeze them."""
    return "".join(sorted({f"{one.name}=={one.version}\n" for one in distributions()}))
