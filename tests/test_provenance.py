"""Where a run comes from, in a real checkout: what its changes are called, and what they hold."""

import subprocess

import pytest

from studies import provenance
from studies.provenance import Commit, read_commit, same_code


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with one commit; gives a function that calls git in it."""
    monkeypatch.setattr(provenance, "ROOT", tmp_path)

    def git(*arguments, **kwargs):
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, **kwargs)

    git("init")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "old.py").write_text("x = 1\n")
    git("add", ".")
    git("commit", "-m", "one")
    return git


def test_a_clean_checkout_has_no_changes(checkout):
    commit = read_commit()
    assert not commit.is_dirty and commit.changes == "none"


def test_changes_bring_back_changed_and_new_code(checkout, tmp_path):
    (tmp_path / "models" / "old.py").write_text("x = 2\n")
    (tmp_path / "models" / "new.py").write_text("y = 1\n")
    (tmp_path / "notes.txt").write_text("mine\n")
    commit = read_commit()
    assert "untracked: notes.txt" in commit.diff
    checkout("stash", "--include-untracked")
    assert not (tmp_path / "models" / "new.py").exists()
    checkout("apply", input=commit.diff.encode())
    assert (tmp_path / "models" / "old.py").read_text() == "x = 2\n"
    assert (tmp_path / "models" / "new.py").read_text() == "y = 1\n"


def test_other_changes_have_another_name():
    one, same, other = (Commit("abc", diff).changes for diff in ("a", "a", "b"))
    assert one == same != other and len(one) == 16


def test_commits_that_differ_outside_the_code_have_the_same_code(checkout, tmp_path):
    first = read_commit().hash
    (tmp_path / "README.md").write_text("words\n")
    checkout("add", ".")
    checkout("commit", "-m", "two")
    second = read_commit().hash
    assert same_code(first, second) is True
    (tmp_path / "models" / "old.py").write_text("x = 2\n")
    checkout("commit", "-am", "three")
    assert same_code(second, read_commit().hash) is False
    assert same_code("0" * 40, second) is None
