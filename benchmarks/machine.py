"""The machine: its processor, the versions that a measurement depends on, and the cost of processes."""

from __future__ import annotations

import platform
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import psutil

from service.cores import available_cores

_PACKAGES: Final = ("torch", "transformers", "openvino", "nncf", "sentence-transformers", "faiss-cpu")
_INSTRUCTIONS: Final = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8")


def machine() -> str:
    """Describe the processor, its instructions that matter here, and the versions in this environment."""
    flags = _cpu("flags").split()
    known = ", ".join(instruction for instruction in _INSTRUCTIONS if instruction in flags)
    versions = []
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            versions.append(f"{package} {version(package)}")
    model = _cpu("model name") or platform.processor()
    return f"{model}, {available_cores()} cores ({known}); Python {platform.python_version()}, {', '.join(versions)}"


def tree(pid: int) -> list[psutil.Process]:
    """List a process and its descendants; none where it has ended."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def resident_mb(pid: int) -> float:
    """Add up the resident memory of a process and its descendants, in MB; what they share counts for each."""
    return _total(pid, lambda process: process.memory_info().rss) / 1e6


def cpu_seconds(pid: int) -> float:
    """Add up the processor time that a process and its descendants have used, in seconds."""
    return _total(pid, lambda process: sum(process.cpu_times()[:2]))


def _total(pid: int, figure: Callable[[psutil.Process], float]) -> float:
    total = 0.0
    for process in tree(pid):
        with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            total += figure(process)
    return total


def _cpu(key: str) -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith(key)), "")
