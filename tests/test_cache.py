"""The cache: made once, by one process, complete or not there."""

import errno
import os
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from models import brain_cvae
from training import cache as cache_module
from training.cache import Cache, CacheError, code_digest, make_key
from training.cache_room import Room

# Makes the entry "key" slowly, and says so in a file that counts how often it was made.
MAKER = """
import sys, time
from pathlib import Path
from training.cache import Cache

root, seconds = Path(sys.argv[1]), float(sys.argv[2])

def make(folder):
    with (root / "made").open("a") as made:
        made.write("x")
    (folder / "half").write_text("written")
    time.sleep(seconds)
    (folder / "value").write_text("done")

Cache(root / "cache").get_or_make("key", make)
"""


def start_maker(root: Path, *, seconds: float) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", MAKER, str(root), str(seconds)])


def write(text: str):
    def make(folder: Path) -> None:
        (folder / "value").write_text(text)

    return make


def never(folder: Path) -> None:
    raise AssertionError("the entry was made again")


def names(root: Path) -> set[str]:
    return {path.name for path in root.iterdir() if path.suffix != ".lock"}


def test_an_entry_is_made_once(tmp_path):
    cache = Cache(tmp_path / "deep" / "cache")
    folder = cache.get_or_make("key", write("first"))
    assert cache.get_or_make("key", never) == folder
    assert (folder / "value").read_text() == "first"


@pytest.mark.parametrize("damage", ["change", "remove", "add", "forget"])
def test_a_damaged_entry_is_made_again_and_said_so(tmp_path, caplog, damage):
    cache = Cache(tmp_path)
    folder = cache.get_or_make("key", write("first"))
    if damage == "change":
        (folder / "value").write_text("firsT")
    elif damage == "remove":
        (folder / "value").unlink()
    elif damage == "add":
        (folder / "more").touch()
    else:
        (folder / cache_module.CHECKSUMS).write_text("{")
    cache.get_or_make("key", write("second"))
    assert (folder / "value").read_text() == "second"
    assert "damaged" in caplog.text
    cache.get_or_make("key", never)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, ConnectionError])
def test_what_make_raises_goes_through_and_leaves_nothing(tmp_path, error):
    def make(folder):
        (folder / "half").touch()
        raise error

    with pytest.raises(error):
        Cache(tmp_path).get_or_make("key", make)
    assert names(tmp_path) == set()


def test_a_full_disk_is_one_sentence_with_the_cure_and_leaves_nothing(tmp_path):
    def make(folder):
        (folder / "half").touch()
        Path("/dev/full").write_bytes(b"x")

    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with pytest.raises(CacheError, match=r"disk is full.*Free some space") as caught:
        Cache(tmp_path).get_or_make("key", make)
    assert caught.value.__cause__.errno == errno.ENOSPC
    assert names(tmp_path) == set()


def test_two_processes_that_want_the_same_entry_make_it_once(tmp_path):
    makers = [start_maker(tmp_path, seconds=0.3) for _ in range(2)]
    assert [maker.wait(timeout=20) for maker in makers] == [0, 0]
    assert (tmp_path / "made").read_text() == "x"
    assert (tmp_path / "cache" / "key" / "value").read_text() == "done"


def test_of_those_that_wait_for_a_maker_that_is_killed_one_makes_the_entry(tmp_path):
    maker = start_maker(tmp_path, seconds=60)
    while not (tmp_path / "cache" / "key.tmp" / "half").exists():
        assert maker.poll() is None
        time.sleep(0.01)
    waiting = [start_maker(tmp_path, seconds=0.1) for _ in range(3)]
    time.sleep(0.5)
    assert [one.poll() for one in waiting] == [None] * 3
    maker.kill()
    maker.wait()
    assert [one.wait(timeout=20) for one in waiting] == [0] * 3
    assert (tmp_path / "made").read_text() == "xx"  # the one that died, and one of the three
    assert names(tmp_path / "cache") == {"key"}
    Cache(tmp_path / "cache").get_or_make("key", never)


def test_what_a_killed_process_left_is_removed_and_never_believed(tmp_path):
    maker = start_maker(tmp_path, seconds=60)
    half = tmp_path / "cache" / "key.tmp" / "half"
    while not half.exists():
        assert maker.poll() is None
        time.sleep(0.01)
    cache = Cache(tmp_path / "cache")
    cache.get_or_make("other", write("1"))
    assert names(tmp_path / "cache") == {"key.tmp", "other"}  # it is alive
    maker.kill()
    maker.wait()
    cache.get_or_make("another", write("2"))
    assert names(tmp_path / "cache") == {"other", "another"}
    assert (cache.get_or_make("key", write("3")) / "value").read_text() == "3"


def test_a_key_depends_on_every_part_and_not_on_their_order():
    key = make_key(name="a", numbers=[1, 2], more={"x": 0.5, "y": None})
    assert key == make_key(more={"y": None, "x": 0.5}, numbers=[1, 2], name="a")
    assert len(key) == 32
    assert int(key, 16)
    others = [
        make_key(name="b", numbers=[1, 2], more={"x": 0.5, "y": None}),
        make_key(name="a", numbers=[2, 1], more={"x": 0.5, "y": None}),
        make_key(name="a", numbers=[1, 2], more={"x": 0.25, "y": None}),
        make_key(name="a", numbers=[1, 2]),
    ]
    assert len({key, *others}) == 5


def test_the_codes_digest_depends_on_the_modules_and_repeats():
    assert code_digest(brain_cvae) == code_digest(brain_cvae)
    assert code_digest(brain_cvae) != code_digest(brain_cvae, cache_module)


# Asks for the entries that it is given, says so, and lives until it is told to end.
HOLDER = """
import sys
from pathlib import Path
from training.cache import Cache
from training.cache_room import Room

cache = Cache(Path(sys.argv[1]), Room(10 ** 6))
for key in sys.argv[2:]:
    cache.get_or_make(key, lambda folder: (folder / "value").write_bytes(bytes(1000)))
print("holds", flush=True)
sys.stdin.read()
"""


@contextmanager
def holding(code: str, root: Path, *keys: str):
    """A process that asks for entries of a cache, killed on the way out."""
    command = [sys.executable, "-c", code, str(root), *keys]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def holder(root: Path, *keys: str):
    """While a process holds entries of a cache."""
    with holding(HOLDER, root, *keys) as process:
        assert process.stdout.readline() == "holds\n"
        yield


def kilobyte(folder: Path) -> None:
    (folder / "value").write_bytes(bytes(1000))


def fill_with_age(root: Path, *keys: str) -> None:
    """Entries that were asked for long ago, the first the longest."""
    for age, key in enumerate(reversed(keys), 1):
        folder = Cache(root).get_or_make(key, kilobyte)
        os.utime(folder, (1000.0 - age, 1000.0 - age))


def kept(root: Path) -> set[str]:
    return {folder.name for folder in Cache(root).entries()}


def test_what_nobody_has_asked_for_the_longest_is_dropped_and_said_so_once(tmp_path, caplog):
    fill_with_age(tmp_path, "a", "b", "c")
    cache = Cache(tmp_path, Room(2500))  # an entry takes 1000 bytes and its checksums
    cache.get_or_make("new", kilobyte)
    assert kept(tmp_path) == {"c", "new"}
    assert len(caplog.records) == 1
    assert "nobody has asked for the longest was dropped (entries: 2" in caplog.text
    cache.get_or_make("c", never)
    cache.get_or_make("newer", kilobyte)
    assert "new" in kept(tmp_path)  # this process holds all three


def test_nothing_is_dropped_within_the_limit_or_without_one(tmp_path):
    fill_with_age(tmp_path, "a", "b")
    Cache(tmp_path, Room(10_000)).get_or_make("new", kilobyte)
    Cache(tmp_path).get_or_make("newer", kilobyte)
    assert kept(tmp_path) == {"a", "b", "new", "newer"}


def test_what_another_process_holds_stays_until_it_is_gone_however_it_ends(tmp_path):
    fill_with_age(tmp_path, "a", "b", "c")
    room = Room(1200)
    with holder(tmp_path, "a", "b"):
        Cache(tmp_path, room).get_or_make("new", kilobyte)
        assert kept(tmp_path) == {"a", "b", "new"}
        assert not Cache(tmp_path).forget("a")
        Cache(tmp_path).get_or_make("a", never)
    Cache(tmp_path, room).get_or_make("newer", kilobyte)
    assert kept(tmp_path) == {"new", "newer"}
    assert len(list((tmp_path / "holders").glob("*.keys"))) == 1  # this process's


def test_two_processes_that_drop_at_once_leave_whole_entries(tmp_path):
    fill_with_age(tmp_path, *"abcdefghij")
    code = HOLDER.replace("10 ** 6", "2500")
    with ExitStack() as started:
        both = [
            started.enter_context(holding(code, tmp_path, *keys)) for keys in ("klmnopq", "rstuvwx")
        ]
        assert [process.stdout.readline() for process in both] == ["holds\n", "holds\n"]
        assert kept(tmp_path) == set("klmnopqrstuvwx")
    for key in "klmnopqrstuvwx":
        Cache(tmp_path).get_or_make(key, never)


def test_what_is_needed_stays_although_nobody_holds_it_and_that_is_said(tmp_path, caplog):
    fill_with_age(tmp_path, "a", "b")
    Cache(tmp_path, Room(1200, needed=lambda: {"a"})).get_or_make("new", kilobyte)
    assert kept(tmp_path) == {"a", "new"}
    assert "raise CACHE_GB=" in caplog.text
