"""Resident memory: what was needed only to start is given back to the system. On Linux; elsewhere nothing is done."""

from __future__ import annotations

import ctypes
import gc
import mmap
import sys
from pathlib import Path


def settle() -> None:
    """Take what is loaded as there to stay, and give back what loading it left.

    A full garbage collection that walks a loaded model would hold every request up for a fifth of a second.
    """
    gc.freeze()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None  # only glibc has it
    if trim is not None:
        trim(0)


def release_pages(file: Path) -> None:
    """Give back the memory in which a file is mapped; what is read all the same comes back by itself."""
    if sys.platform != "linux":
        return
    name = str(file.resolve())
    libc = ctypes.CDLL(None)
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(name):
            start, end = (int(address, 16) for address in line.split(maxsplit=1)[0].split("-"))
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)
