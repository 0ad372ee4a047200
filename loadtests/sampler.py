"""What the service and the load cost the machine, twice a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import numpy as np
import psutil

from benchmarks.machine import cpu_seconds, resident_mb

INTERVAL: Final = 0.5


@dataclass(frozen=True, slots=True)
class Sample:
    """The state at one moment; processor times add up from the start of what used them.

    Args:
        at: seconds of the clock.
        resident: memory of the service, in MB; 0 where it is not on this machine.
        service: processor time of the service, in seconds.
        generator: processor time of Locust, in seconds.
        machine: processor time of everything on this machine, in seconds.
        descriptors: files and connections that the service has open.
        threads: of the service.

    """

    at: float
    resident: float
    service: float
    generator: float
    machine: float
    descriptors: int = 0
    threads: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """Mean use of a stretch of time, in cores."""

    service: float
    generator: float
    others: float


class Sampler:
    """Takes samples in the background for as long as its `with` block lasts.

    Args:
        service: the process of the service; None where it is not on this machine.

    """

    def __init__(self, service: int | None) -> None:
        self._service = service
        self.generator: int | None = None
        """The process of Locust, once there is one."""
        self.samples: list[Sample] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(INTERVAL):
            self.samples.append(
                Sample(
                    time.time(),
                    resident_mb(self._service) if self._service else 0.0,
                    cpu_seconds(self._service) if self._service else 0.0,
                    cpu_seconds(self.generator) if self.generator else 0.0,
                    _machine_seconds(),
                    *(_held(self._service) if self._service else (0, 0)),
                )
            )


def slope(samples: Sequence[Sample]) -> float:
    """Return how much memory the service gained, in MB a minute, by a straight line through the samples."""
    if len(samples) < 3:
        return 0.0
    return float(np.polyfit([sample.at / 60 for sample in samples], [sample.resident for sample in samples], 1)[0])


def _held(pid: int) -> tuple[int, int]:
    """Return how many files a process has open, and how many threads it has; 0 where it has ended."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return process.num_fds(), process.num_threads()
    return 0, 0


def within(samples: Sequence[Sample], start: float, end: float) -> list[Sample]:
    """Return the samples of an interval, its ends included."""
    return [sample for sample in samples if start <= sample.at <= end]


def usage(samples: Sequence[Sample]) -> Usage | None:
    """Mean use of processors between the first sample and the last; None where there are fewer than two."""
    if len(samples) < 2:
        return None
    first, last = samples[0], samples[-1]
    seconds = last.at - first.at
    service = (last.service - first.service) / seconds
    # A process that has ended has no figure any more: the highest is its last.
    generator = (max(sample.generator for sample in samples) - first.generator) / seconds
    machine = (last.machine - first.machine) / seconds
    return Usage(service, generator, max(machine - service - generator, 0.0))


def _machine_seconds() -> float:
    """Processor time of everything since the machine started; steal counts, for it is not ours to use."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq + times.steal)
