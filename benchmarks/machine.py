"""The machine: its processor, what may be used of that, the versions that count, and the cost of processes."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import psutil

_PACKAGES: Final = ("torch", "transformers", "openvino", "nncf", "sentence-transformers", "faiss-cpu")
_INSTRUCTIONS: Final = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
"""The later ones are the faster ones."""
_ONEDNN: Final = "ONEDNN_MAX_CPU_ISA"
_AVX2: Final = {_ONEDNN: "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "FAISS_OPT_LEVEL": "avx2"}
"""What keeps oneDNN (and with it OpenVINO), PyTorch and FAISS to AVX2."""


def machine() -> str:
    """Describe the processor, its instructions that matter here, and the versions in this environment."""
    versions = []
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            versions.append(f"{package} {version(package)}")
    known = ", ".join(_known())
    return f"{processor()} (it has {known}); Python {platform.python_version()}, {', '.join(versions)}"


def processor() -> str:
    """Name the processor, the cores, and the fastest instructions that programs started here may use."""
    from service.cores import available_cores

    limit = os.environ.get(_ONEDNN, "").lower()
    most = f"limited to {limit}" if limit else (_known() or ["no AVX2"])[-1]
    return f"{_cpu('model name') or platform.processor()}, {available_cores()} cores, {most}"


def has_bf16() -> bool:
    """Whether programs started here may use instructions for bf16."""
    limited = os.environ.get(_ONEDNN, "").upper() == "AVX2"
    return not (limited or {"avx512_bf16", "amx_bf16"}.isdisjoint(_known()))


def limit_to_avx2() -> str:
    """Keep this process, if it has loaded no library yet, and those that it starts to AVX2; says what that does."""
    beyond = [name for name in _known() if name != "avx2"]
    if not beyond:
        return "this processor has nothing beyond AVX2: the limit changes nothing"
    os.environ |= _AVX2
    return f"not used of this processor: {', '.join(beyond)} ({' '.join(f'{k}={v}' for k, v in _AVX2.items())})"


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


@dataclass
class Usage:
    """What a stretch of time cost a process and its descendants.

    Args:
        cpu: seconds of processor time, user and system.
        resident: memory at the end, in MB.
        peak: the most memory in between, in MB; what each process had at most, added up.

    """

    cpu: float = 0.0
    resident: float = 0.0
    peak: float = 0.0


@contextmanager
def usage_of(pid: int) -> Iterator[Usage]:
    """Measure what the `with` block costs a process and its descendants; the figures are there at its end."""
    _total(pid, _forget_peak)
    found, before = Usage(), cpu_seconds(pid)
    try:
        yield found
    finally:
        found.cpu, found.resident, found.peak = cpu_seconds(pid) - before, resident_mb(pid), _total(pid, _peak_mb)


def _forget_peak(process: psutil.Process) -> float:
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # the kernel counts VmHWM from here on
    return 0.0


def _peak_mb(process: psutil.Process) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return next((int(line.split()[1]) * 1024 / 1e6 for line in status.splitlines() if line.startswith("VmHWM")), 0.0)


def _total(pid: int, figure: Callable[[psutil.Process], float]) -> float:
    total = 0.0
    for process in tree(pid):
        with suppress(psutil.NoSuchProcess, OSError):  # it has ended meanwhile
            total += figure(process)
    return total


def _known() -> list[str]:
    flags = _cpu("flags").split()
    return [name for name in _INSTRUCTIONS if name in flags]


def _cpu(key: str) -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith(key)), "")
