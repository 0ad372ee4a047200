"""One scenario from start to end: Locust in a process of its own, watched from here."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from rich.console import Console
from rich.progress import Progress, TextColumn
from rich.table import Column

from loadtests.deployment import Facts, Service
from loadtests.records import BACKPRESSURE, FAILURE, LOOKS, OK, Reader, Record
from loadtests.sampler import Sampler
from loadtests.scenarios import Phase, Scenario
from loadtests.texts import write
from tests.support.servers import ROOT

RAMP: Final = 0.25
"""The part of a run in which users are added, evenly; what the tables say is measured after it."""
LAST_TASKS: Final = 15
"""Seconds that users have to finish what they are at."""
GRACE: Final = 30
"""Further seconds until Locust is taken for stuck."""


@dataclass(frozen=True)
class Figures:
    """What some requests came to; latencies are in milliseconds and of those that were answered well."""

    requests_per_second: float
    texts_per_second: float
    p50: float
    p95: float
    p99: float


class Run:
    """A scenario under way or over.

    Args:
        scenario: what is run.
        users: how many at once.
        seconds: for how long, the ramp included.

    """

    def __init__(self, scenario: Scenario, users: int, seconds: int) -> None:
        self.scenario = scenario
        self.users = users
        self.seconds = seconds
        self.problems: list[str] = []
        """What went wrong beside requests."""
        self.started = 0.0
        self.ended = 0.0
        """When it began and when it was over or cut off, in seconds of the clock; 0 where it never began."""
        self.records: Sequence[Record] = ()

    @property
    def steady(self) -> tuple[float, float]:
        """From the end of the ramp to the end of the run, or the phase of most users; all of one cut off before."""
        if self.scenario.phases:
            _, start, until = max(self.phases, key=lambda part: part[0].factor)
            return (start, min(until, self.ended)) if start < self.ended else (self.started, self.ended)
        top = self.started + RAMP * self.seconds
        end = min(self.ended, self.started + self.seconds)
        return (top, end) if top < end else (self.started, end)

    def steady_records(self) -> list[Record]:
        """Return the requests that ended in the steady part, but those that only look after the service."""
        return [record for record in self.within(*self.steady) if record.name not in LOOKS]

    def within(self, start: float, end: float) -> list[Record]:
        """Return the requests that ended in an interval."""
        return [record for record in self.records if start <= record.at < end]

    @property
    def phases(self) -> list[tuple[Phase, float, float]]:
        """The scenario's phases, and from when to when each was, in seconds of the clock."""
        found = []
        start = self.started
        for phase in self.scenario.phases:
            end = start + phase.share * self.seconds
            found.append((phase, start, end))
            start = end
        return found

    def figures(self, records: Iterable[Record]) -> Figures | None:
        """Rates and latencies of some of `steady_records`; None where none was answered well."""
        answered = [record for record in records if record.outcome == OK]
        start, end = self.steady
        if not answered:
            return None
        p50, p95, p99 = percentiles(answered)
        texts = sum(record.texts for record in answered)
        return Figures(len(answered) / (end - start), texts / (end - start), p50, p95, p99)

    def count(self, outcome: str) -> int:
        """How many requests of the whole run, ramp and all, had this outcome."""
        return sum(record.outcome == outcome for record in self.records)

    def failures(self) -> Counter[tuple[str, str]]:
        """Each kind of request with each message of failure, and how often it came."""
        return Counter((record.name, record.detail) for record in self.records if record.outcome == FAILURE)

    def execute(self, service: Service, facts: Facts, collection: str, sampler: Sampler, folder: Path) -> None:
        """Run it; what was measured is there afterwards also where this is interrupted."""
        log, path = folder / f"{self.scenario.name}.log", folder / f"{self.scenario.name}.jsonl"
        locust = [sys.executable, "-m", "locust", "-f", str(ROOT / "loadtests" / "locustfile.py")]
        if self.scenario.phases:
            locust[-1] += f",{ROOT / 'loadtests' / 'shape.py'}"
            load = ["--phases", ",".join(f"{self.users * part.factor}:{end:.1f}" for part, _, end in self.phases)]
        else:
            load = ["--users", str(self.users), "--spawn-rate", f"{self.users / (RAMP * self.seconds):.4f}"]
            load += ["--run-time", str(self.seconds)]
        time_limits = ["--stop-timeout", str(LAST_TASKS)]
        quiet = ["--headless", "--only-summary", "--exit-code-on-error", "0", "--loglevel", "WARNING"]
        texts = folder / "texts.json"
        if not texts.exists():
            write(texts)
        told = ["--model", facts.model, "--dimension", str(facts.dimension), "--collection", collection]
        host = ["--host", service.url, "--texts", str(texts)]
        command = [*locust, *self.scenario.user.split(), *host, *load, *time_limits, *quiet, *told]
        reader = Reader(path)
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, "--record", str(path)],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for the load test, which ends Locust in its turn
            )
        sampler.generator = process.pid
        try:
            self._watch(process, reader, sampler)
        finally:
            self.ended = time.time()
            _end(process)
            reader.update()
            self.started = reader.started or self.ended
            self.records = reader.records
        if process.returncode != 0:
            said = log.read_text(errors="replace").strip().splitlines()[-10:]
            self.problems.append(f"Locust ended with status {process.returncode}:\n" + "\n".join(said))
        elif not self.count(OK):
            self.problems.append("no request was answered well, so nothing was measured")

    def _watch(self, process: subprocess.Popen[bytes], reader: Reader, sampler: Sampler) -> None:
        deadline = time.monotonic() + self.seconds + LAST_TASKS + GRACE
        line = TextColumn("{task.description:<12} {task.fields[now]}", table_column=Column(no_wrap=True))
        with Progress(line, console=Console(stderr=True)) as progress:
            bar = progress.add_task(self.scenario.name, total=self.seconds, now="starting")
            while process.poll() is None:
                if time.monotonic() > deadline:
                    self.problems.append(f"Locust had not ended {LAST_TASKS + GRACE} s after its time")
                    return
                time.sleep(0.5)
                reader.update()
                if reader.started is not None:
                    done = min(time.time() - reader.started, self.seconds)
                    progress.update(bar, completed=done, now=_now(reader, done, self.seconds, sampler))


def percentiles(records: Iterable[Record]) -> tuple[float, float, float]:
    """Return the 50th, 95th and 99th percentile of latency."""
    p50, p95, p99 = np.percentile([record.milliseconds for record in records], (50, 95, 99))
    return float(p50), float(p95), float(p99)


def _now(reader: Reader, done: float, seconds: int, sampler: Sampler) -> str:
    """Describe the last two seconds, and all failures."""
    lately = [record for record in reader.records if record.at > time.time() - 2 and record.outcome == OK]
    outcomes = Counter(record.outcome for record in reader.records)
    memory = sampler.samples[-1].resident if sampler.samples else 0.0
    parts = [f"{done:.0f}/{seconds} s"]
    if lately:
        parts += [f"{lately[-1].users} users", f"{len(lately) / 2:.0f}/s", f"p95 {percentiles(lately)[1]:.0f} ms"]
    if memory:
        parts.append(f"{memory:.0f} MB")
    return "  ".join([*parts, f"{outcomes[BACKPRESSURE]} refused", f"{outcomes[FAILURE]} failed"])


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let Locust end, where it has not: at once, with what it has recorded."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(LAST_TASKS + 5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
