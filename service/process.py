"""What Millpond changes for the whole process; each is a function that is called explicitly."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from service.cores import available_cores

T = TypeVar("T")
_TEAMS: Final = {"OMP_NUM_THREADS", "RAYON_NUM_THREADS"}
"""The threads of OpenMP (PyTorch, FAISS, BLAS) and of the tokenizers; OpenVINO is told by its runtime."""
_CHOSEN: Final = _TEAMS & os.environ.keys()
"""What the user has set, which is left alone."""
_ALLOCATOR: Final = {"MALLOC_ARENA_MAX": (-8, 2), "MALLOC_MMAP_THRESHOLD_": (-3, 2**20)}
"""Parameters of glibc's malloc, by the variable that sets them: number, value. Token states are large and come from
several threads; with an arena a thread and a threshold that grows, what each has freed stays with the process."""
_NICENESS: Final = 5
"""Added for threads that compute; the others have three times their share of a core that both want."""


def prepare_process(threads: int | None = None) -> None:
    """Make the process fit to load models; call it before the first model is loaded.

    OpenVINO and NNCF report each use to their makers through the package `openvino_telemetry`. From here on it
    counts as not installed in this process, so that nothing is reported.

    Memory that was freed returns to the OS early, as far as glibc's malloc is concerned.

    Libraries that compute start a thread for every core of the machine, whatever a cgroup's quota leaves of it. From
    here on they start no more than `threads`, unless the environment says how many.

    Args:
        threads: how many cores to use; all that this process may use by default.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    if set_parameter := _glibc("mallopt"):
        for name, (number, value) in _ALLOCATOR.items():
            if name not in os.environ:
                set_parameter(number, value)
    threads = threads or available_cores()
    for name in _TEAMS - _CHOSEN:
        os.environ[name] = str(threads)
    # OpenMP has read the environment if PyTorch is there already, and importing it here would take a second.
    if (torch := sys.modules.get("torch")) and "OMP_NUM_THREADS" not in _CHOSEN:
        torch.set_num_threads(min(threads, torch.get_num_threads()))


def open_many_files() -> None:
    """Let the process have as many connections open as it may; the usual limit of 1,024 is one that it can raise."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def in_background(work: Callable[[], T]) -> T:
    """Run work in a thread that waits for others where cores are short, as do the threads that it starts, and wait.

    So what computes for long leaves the cores to what answers at once. On other systems than Linux all threads of a
    process have one priority, and it stays.
    """
    with ThreadPoolExecutor(1, initializer=_lower_priority) as executor:
        return executor.submit(work).result()


def resident_bytes() -> int | None:
    """Return how much memory the process has in use, as `ps` tells it; None where the system does not say."""
    try:
        _, resident, *_ = Path("/proc/self/statm").read_text(encoding="ascii").split()
    except OSError:
        return None
    return int(resident) * resource.getpagesize()


def freeze_and_trim() -> None:
    """Exempt loaded objects from garbage collection and return freed memory to the OS; call it after loading.

    A full collection that walks a loaded model would delay every request by a fifth of a second.
    """
    gc.freeze()
    if trim := _glibc("malloc_trim"):
        trim(0)


def _lower_priority() -> None:
    if sys.platform == "linux":
        with suppress(OSError):  # forbidden by a sandbox
            os.nice(_NICENESS)  # of this thread alone


def _glibc(name: str) -> Callable[..., object] | None:
    """Return a function that only glibc has; None under another C library."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
