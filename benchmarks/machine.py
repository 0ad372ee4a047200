"""The machine: its processor, the versions that a measurement depends on, and what processes cost."""

from __future__ import annotations

import os
import platform
import subprocess
from collections import defaultdict
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from service.encoder.runtimes.machine import available_cores

_PACKAGES: Final = ("torch", "transformers", "openvino", "nncf", "sentence-transformers", "faiss-cpu")
_TICKS: Final = os.sysconf("SC_CLK_TCK")


def machine() -> str:
    """The processor, its instructions that matter here, and the versions in this environment."""
    flags = _cpu("flags").split()
    known = [
        flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8") if flag in flags
    ]
    model = _cpu("model name") or platform.processor()
    return (
        f"{model}, {available_cores()} cores ({', '.join(known)}); Python {platform.python_version()}, "
        + ", ".join(f"{name} {found}" for name in _PACKAGES if (found := _version(name)))
    )


def versions_in(python: Path, packages: Sequence[str]) -> str:
    """Versions of packages in another environment, such as `infinity-emb 0.0.78, torch 2.13.0`."""
    program = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]), sep='\\n')"
    found = subprocess.run([python, "-c", program, *packages], check=True, capture_output=True, text=True)
    return ", ".join(f"{name} {each}" for name, each in zip(packages, found.stdout.split(), strict=True))


def tree(pid: int) -> list[int]:
    """A process and all under it."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and (fields := _stat(int(path.name))):
            children[int(fields[1])].append(int(path.name))
    found = [pid]
    for parent in found:
        found += children[parent]
    return found


def resident_mb(pid: int) -> float:
    """Resident memory of a process and all under it, in MB. What they share is counted for each."""
    sizes = [
        line.split()[1] for one in tree(pid) for line in _lines(f"/proc/{one}/status") if line.startswith("VmRSS")
    ]
    return sum(map(int, sizes)) * 1024 / 1e6


def cpu_seconds(pid: int) -> float:
    """Processor time that a process and all under it have used, in seconds."""
    return sum(int(fields[11]) + int(fields[12]) for one in tree(pid) if (fields := _stat(one))) / _TICKS


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the command, which may hold spaces; none where it has ended."""
    lines = _lines(f"/proc/{pid}/stat")
    return lines[0].rpartition(")")[2].split() if lines else []


def _cpu(key: str) -> str:
    return next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith(key)), "")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:  # not Linux, or the process has ended
        return []
