"""What a single query waits while the server is busy with others.

    python -m benchmarks.fairness

One client sends single sentences in a closed loop on a connection of its own: to an idle server, while requests of
10,000 texts run one after the other, and while 8 clients send 32 texts a request.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks import datasets
from benchmarks.load import HOW, Client
from benchmarks.options import Settings, from_command_line, progress
from benchmarks.peers import INT8, infinities
from benchmarks.plots import bars
from benchmarks.report import Report, number, ratio, spread
from benchmarks.servers import Server
from benchmarks.service import Millpond, runnable

IDLE: Final = "idle"
CROWD: Final = "8 clients x 32"
HEAD_START: Final = 2.0
"""Seconds that the others run longer than the single queries, half of it before them."""

Waits = dict[str, dict[str, list[float]]]
"""p50 and p99 in milliseconds, of each round."""


def run(settings: Settings) -> None:
    """Measure, print and write."""
    report = Report("fairness", "A single query among others", settings)
    texts = datasets.sts_sentences()
    many = settings.some(10_000, 1_000)
    repeated = list(islice(cycle(texts), many))
    long = f"one request of {many:,} texts"
    seconds = settings.some(3, 1)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        ours, notes = runnable(stack, folder)
        best, left_out = infinities(stack, folder, [INT8])
        servers: list[Server] = [*ours.values(), *best]
        notes += left_out or [f"{INT8} takes no request of {many:,} texts, so it has no such row."]
        single, crowd = stack.enter_context(Client()), stack.enter_context(Client())
        waits: dict[str, Waits] = {}
        for server in servers:
            server.warm_up(single, texts[:128])
            kinds = [IDLE, long, CROWD] if isinstance(server, Millpond) else [IDLE, CROWD]
            waits[server.name] = {kind: {"p50": [], "p99": [], "queries": []} for kind in kinds}
        for number_of in range(settings.rounds):
            for server in servers:
                for kind, found in waits[server.name].items():
                    if kind != IDLE:
                        each, clients = (many, 1) if kind == long else (32, 8)
                        load = server.load(repeated, clients=clients, each=each, seconds=seconds + HEAD_START)
                        crowd.start(load)
                        time.sleep(HEAD_START / 2)
                    outcome = single.run(server.load(texts[:200], clients=1, each=1, seconds=seconds))
                    if kind != IDLE:
                        crowd.finish()
                    found["p50"].append(outcome.milliseconds(50))
                    found["p99"].append(outcome.milliseconds(99))
                    found["queries"].append(len(outcome.latencies))
            progress(f"fairness: round {number_of + 1} of {settings.rounds}")
        runs_on = [f"{server.name} ran {server.runs_on}." for server in ours.values()]
        commands = {server.name: server.command() for server in servers}
    report.say(
        f"One client in a closed loop of single sentences, {seconds} s each; milliseconds, median of "
        f"{settings.rounds} (least-most); the ratios are to the idle server, the median of the rounds' ratios:"
    )
    rows = [
        [
            f"{server}, {kind}",
            *(cell for p in ("p50", "p99") for cell in (spread(found[p]), number(ratio(found[p], every[IDLE][p])))),
            f"{median(found['queries']):.0f}",
        ]
        for server, every in waits.items()
        for kind, found in every.items()
    ]
    report.table(["a single query", "p50, ms", "x idle", "p99, ms", "x idle", "queries a round"], rows)
    report.say(f"{HOW} The single queries and the others come from two such processes.")
    report.note([*notes, *runs_on])
    report.commands(commands)
    panels = {
        f"{server}, {p}": {kind: median(found[p]) for kind, found in every.items()}
        for server, every in waits.items()
        for p in ("p50", "p99")
    }
    figure = bars(panels, x="milliseconds (lower is better)", title="Latency of a single query among others")
    report.plot(figure, "fairness", "Latency of a single query among others")
    report.keep("latency_ms", waits)
    report.keep("left_out", notes)
    report.write()


if __name__ == "__main__":
    run(from_command_line(__doc__))
