"""Memory that is given back stays with the process, however that was started."""

import os
import platform
import resource
import subprocess
import sys

import pytest

from training.allocator import SETTINGS

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
SIZE = 2**26
PAGES = SIZE // resource.getpagesize()
PROGRAM = """
import resource
from training.allocator import keep_freed_memory

{first}
bytes([120]) * {size}
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    bytes([120]) * {size}
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def new_pages(first: str, **environment: str) -> int:
    """What four blocks of 64 MB, made one by one in a fresh process, need of the system."""
    inherited = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(first=first, size=SIZE)],
        env=inherited | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


def test_a_large_block_takes_the_memory_of_the_one_before():
    assert new_pages("") > 3 * PAGES
    assert new_pages("keep_freed_memory()") < 0.1 * PAGES


def test_what_the_environment_says_stays():
    assert new_pages("keep_freed_memory()", MALLOC_MMAP_THRESHOLD_="65536") > 3 * PAGES
