"""Memory that a training step gives back stays with the process.

Owns what glibc's allocator is told. Knows nothing of networks or devices.
"""

import ctypes
import os
import platform

# mallopt's names in malloc.h, and the environment that says the same before a process starts.
SETTINGS = {
    "MALLOC_MMAP_THRESHOLD_": (-3, 2**30),  # blocks below this size come from the heap
    "MALLOC_TRIM_THRESHOLD_": (-1, 2**31 - 1),  # of which this much may lie free
    "MALLOC_TOP_PAD_": (-2, 2**26),  # and which grows by this much
}


def keep_freed_memory() -> bool:
    """Let glibc keep large blocks for the next step; whether there is a glibc.

    By default it hands them back to the system and asks for them anew, zeroed page by page, at each
    step: 40 % of the time of the paper's BrainCNN. What the environment sets stays as it is.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    for variable, (parameter, value) in SETTINGS.items():
        if variable not in os.environ:
            mallopt(parameter, value)
    return True
