"""Memory and latency over ten minutes of requests in random shapes, at one precision after the other.

32 clients send 1 to 64 texts of 1 to 250 words a request. Memory that grows with every new shape of a batch, and
waits until one is prepared, show here. Ctrl-C ends it early and reports what was measured by then.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import numpy as np
import uvloop

from benchmarks.load import Answer, Load, Request, encode, send_all
from benchmarks.machine import Usage, usage_of
from benchmarks.millpond import Millpond, millponds
from benchmarks.plots import Panel, curves
from benchmarks.report import Report, number, progress
from benchmarks.texts import cranfield, passage
from tests.support.servers import NotStarted

CLIENTS: Final = 32
EVERY: Final = 10.0
"""Seconds from one sample to the next."""
SETTLED: Final = 0.2
"""The share of the time after which memory is to stay where it is: two minutes of ten."""


@dataclass
class Soak:
    """What a server showed.

    Args:
        memory: resident, in MB, at the end of every `EVERY` seconds.
        answers: as they came.
        usage: of the whole time.
        shapes: what `/info` says of the shapes that are compiled; None where it says nothing.

    """

    memory: list[float] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    shapes: Any = None

    def p99(self) -> list[float | None]:
        """Give the 99th percentile of the answers of every `EVERY` seconds, in milliseconds; None without any."""
        windows: list[list[float]] = [[] for _ in self.memory]
        for answer in self.answers:
            windows[min(int(answer.at / EVERY), len(windows) - 1)].append(1000 * answer.latency)
        return [float(np.percentile(window, 99)) if window else None for window in windows]

    def row(self, early: int) -> dict[str, str]:
        """Give the cells of a table; memory is early after so many samples."""
        before, last = self.memory[:early][-1], self.memory[-1]
        p50, p99, longest = np.percentile([1000 * each.latency for each in self.answers], (50, 99, 100)).tolist()
        silence = max((later.at - one.at for one, later in pairwise(self.answers)), default=0.0)
        return {
            "early": number(before),
            "at the end": number(last),
            "growth": f"{last / before - 1:+.1%}",
            "at most": number(self.usage.peak),
            "p50": number(p50),
            "p99": number(p99),
            "longest": number(longest),
            "longest without an answer": number(1000 * silence),
            "requests": f"{len(self.answers)}",
            "refused": f"{sum(each.refused for each in self.answers)}",
            "CPU": number(1000 * self.usage.cpu / sum(each.texts for each in self.answers)),
            "shapes": "" if self.shapes is None else f"{self.shapes}",
        }


def run(report: Report) -> None:
    """Measure, and fill the report; where it is interrupted, write it first."""
    seconds, texts, words = report.size(600, 60), report.size(64, 8), report.size(250, 50)
    found: dict[str, Soak] = {}
    left_out, interrupted = [], False
    for server in millponds():
        soak = Soak()
        progress(f"starting {server.name}")
        try:
            with server.serving():
                found[server.name] = soak
                with usage_of(server.running.process.pid) as soak.usage:
                    uvloop.run(fill(soak, server, requests(server, texts, words), seconds))
                soak.shapes = server.info.get("shapes")
        except NotStarted as error:
            left_out.append(f"{server.name} is left out: {error}")
        except KeyboardInterrupt:
            interrupted = True
            break
    found = {one: soak for one, soak in found.items() if soak.memory and soak.answers}
    report.say(
        f"{CLIENTS} clients in a closed loop, {seconds} s: 1 to {texts} texts of 1 to {words} words a request, "
        "random passages of Cranfield, cut to 256 tokens. Resident memory in MB, early being after "
        f"{SETTLED * seconds:.0f} s; latency of requests in milliseconds, from when they were sent last where the "
        "queue was full and refused them; CPU is the server's milliseconds of processor time a text."
    )
    rows = {one: soak.row(round(SETTLED * seconds / EVERY)) for one, soak in found.items()}
    report.table("", rows)
    report.note(left_out)
    memory = {one: soak.memory for one, soak in found.items()}
    p99 = {one: soak.p99() for one, soak in found.items()}
    if found:
        panels = [panel("Resident memory", "MB", memory), panel(f"p99 of every {EVERY:.0f} s", "ms", p99)]
        report.plot(curves(panels, "Requests in random shapes"), "soak", "Memory and latency over time")
    report.keep(rows=rows, every_seconds=EVERY, memory_mb=memory, p99_ms=p99, interrupted=interrupted)
    if interrupted:
        report.say("**It was interrupted.**")
        report.write()
        raise KeyboardInterrupt


async def fill(soak: Soak, server: Millpond, sent: Iterator[Request], seconds: float) -> None:
    """Send requests for so many seconds and take samples, until the last is answered."""
    load = Load(server.running.port, (), CLIENTS, seconds=seconds, patient=True)
    encoded = ((encode(load.port, request), request.texts) for request in sent)
    sending = asyncio.create_task(send_all(load, encoded, soak.answers))
    began = time.perf_counter()
    while not sending.done():
        due = began + EVERY * (len(soak.memory) + 1)
        await asyncio.wait([sending], timeout=due - time.perf_counter())
        soak.memory.append(server.memory)
        shown = f"{soak.memory[-1]:.0f} MB, {len(soak.answers)} requests"
        if p99 := soak.p99()[-1]:
            shown += f", p99 of the last {EVERY:.0f} s {p99:.0f} ms"
        progress(f"{server.name}: {time.perf_counter() - began:.0f} of {seconds:.0f} s, {shown}")
    await sending


def requests(server: Millpond, texts: int, words: int, seed: int = 0) -> Iterator[Request]:
    """Give requests of at most so many texts of so many words without end, the same for each server."""
    draw = random.Random(seed)
    source = " ".join(cranfield().documents.values()).split()
    while True:
        lengths = [draw.randint(1, words) for _ in range(draw.randint(1, texts))]
        yield server.embed_request([passage(source, length, draw) for length in lengths])


def panel(title: str, unit: str, series: Mapping[str, Sequence[float | None]]) -> Panel:
    """Give axes over time, with a mark at each minute."""
    values = {one: [float("nan") if value is None else value for value in of] for one, of in series.items()}
    ends = [(place + 1) * EVERY / 60 for place in range(max(map(len, values.values())))]
    steps = [f"{end:.0f}" if end == int(end) else "" for end in ends]
    return Panel(title, "minutes", unit, steps, values, (0, None))
