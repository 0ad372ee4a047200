"""How many cores this process may use, by its affinity and by the CPU quota of its cgroups."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

_ROOT: Final = Path("/")
_V2: Final = ""
"""What `/proc/self/cgroup` calls the controllers of the one hierarchy of version 2."""
_V1: Final = "cpu"


@dataclass(frozen=True, slots=True)
class Cores:
    """What a process may use: cores that it may run on, and the time that its cgroups give it, in cores."""

    affinity: int
    quota: float | None = None

    @property
    def count(self) -> int:
        """How many threads may compute at once.

        Of a quota of 1.5 cores this is 1: two that compute all the time use a period's share up in three quarters of
        it and then stand still, all requests with them. What is left over goes to the event loop and the tokenizer,
        which run beside them.
        """
        return self.affinity if self.quota is None else max(1, min(self.affinity, int(self.quota)))

    def __str__(self) -> str:
        quota = "no cgroup quota" if self.quota is None else f"a cgroup quota of {self.quota:g}"
        return f"{self.count} {'core' if self.count == 1 else 'cores'} ({self.affinity} by affinity, {quota})"


def cores(root: Path = _ROOT) -> Cores:
    """Return what this process may use now; `root` is where its file system begins."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Cores(affinity, cgroup_quota(root))


def available_cores() -> int:
    """Return how many cores this process may use."""
    return cores().count


def cgroup_quota(root: Path = _ROOT) -> float | None:
    """Return the smallest quota of this process's cgroups and those above them, in cores; None where there is none.

    Both versions of cgroups are read, as a machine may have both and then the controller is in one of them. What
    cannot be read sets no quota.
    """
    quotas = []
    for controllers, folder in _cgroups(root):
        with suppress(OSError, ValueError, ZeroDivisionError):
            quota, period = _limit(folder) if controllers == _V2 else _limit_v1(folder)
            if quota > 0:  # version 1 has -1 for none
                quotas.append(quota / period)
    return min(quotas, default=None)


def _limit(folder: Path) -> tuple[int, int]:
    quota, period = (folder / "cpu.max").read_text().split()
    return (-1 if quota == "max" else int(quota)), int(period)


def _limit_v1(folder: Path) -> tuple[int, int]:
    quota, period = (int((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
    return quota, period


def _cgroups(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield the version (as the name of its controller) and the folder of each cgroup of this process."""
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
        mounts = (root / "proc/self/mountinfo").read_text().splitlines()
    except (OSError, ValueError):  # not on Linux, or hidden
        return
    paths: dict[str, str] = {}
    for line in groups:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        paths |= dict.fromkeys(controllers.split(","), path)
    for line in mounts:
        fields, _, source = (part.split() for part in line.partition(" - "))
        if len(fields) < 5 or len(source) < 3:
            continue
        controller = _V2 if source[0] == "cgroup2" else _V1
        if source[0] == "cgroup2" or (source[0] == "cgroup" and _V1 in source[2].split(",")):
            mount = root / _unescaped(fields[4]).lstrip("/")
            below = _below(_unescaped(fields[3]), paths.get(controller, "/"))
            yield from ((controller, mount / part) for part in (below, *below.parents))


def _below(mounted: str, path: str) -> PurePosixPath:
    """Return where a cgroup is below a mount of `mounted`; the mount itself where it is outside.

    In a container without a cgroup namespace `path` is the host's, and so is `mounted`; or only one of them is seen.
    """
    try:
        below = PurePosixPath(path).relative_to(mounted)
    except ValueError:
        return PurePosixPath()
    return PurePosixPath() if ".." in below.parts else below


def _unescaped(field: str) -> str:
    r"""Return a field of mountinfo as it is; a space in it is written as `\040`."""
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), field)
