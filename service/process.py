"""What Millpond changes for the whole process; each is a function that is called explicitly."""

from __future__ import annotations

import ctypes
import gc
import sys


def prepare_process() -> None:
    """Make the process fit to load models; call it once, before the first model is loaded.

    OpenVINO and NNCF report each use to their makers through the package `openvino_telemetry`. From here on it
    counts as not installed in this process, so that nothing is reported.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]


def freeze_and_trim() -> None:
    """Exempt loaded objects from garbage collection and return freed memory to the OS; call it after loading.

    A full collection that walks a loaded model would delay every request by a fifth of a second.
    """
    gc.freeze()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None  # only glibc has it
    if trim is not None:
        trim(0)
