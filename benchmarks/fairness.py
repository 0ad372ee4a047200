"""What a single query waits while the server is busy with others.

One client sends single sentences in a closed loop on a connection of its own: to an idle server, while requests of
10,000 texts run one after the other, and while 8 clients send 32 texts a request.
"""

from __future__ import annotations

import time
from functools import partial
from itertools import cycle, islice
from statistics import median
from typing import Final

from benchmarks.load import HOW, Client, Outcome, percentiles
from benchmarks.millpond import Millpond, millponds
from benchmarks.peers.infinity import INT8, infinities
from benchmarks.plots import rows
from benchmarks.report import Report, medians_by_column, nested, number, ratio, spread
from benchmarks.servers import Target, field_of
from benchmarks.texts import sentences, sts

IDLE: Final = "idle"
CROWD: Final = "8 clients x 32"
HEAD_START: Final = 2.0
"""Seconds that the others run longer than the single queries, half of it before them."""


def run(report: Report) -> None:
    """Measure, and fill the report."""
    texts, many, seconds = sentences(sts()), report.size(10_000, 1_000), report.size(3, 1)
    long = f"one request of {many:,} texts"
    company = {long: (1, many), CROWD: (8, 32)}
    """The clients beside, and the texts of each of their requests."""
    repeated = list(islice(cycle(texts), many))
    with field_of([*millponds(), *infinities(INT8)]) as field, Client() as single, Client() as others:

        def wait(server: Target, kind: str) -> Outcome:
            alone = server.load(texts[:200], clients=1, each=1, seconds=seconds)
            if kind == IDLE:
                return single.run(alone)
            clients, each = company[kind]
            load = server.load(repeated, clients=clients, each=each, seconds=seconds + HEAD_START)
            busy = others.start(load)
            time.sleep(HEAD_START / 2)
            outcome = single.run(alone)
            busy.result()
            return outcome

        for server in field.servers:
            server.warm_up(single, texts[:128])
        outcomes = report.interleave(
            {
                (server.name, kind): partial(wait, server, kind)
                for server in field.servers
                for kind in (IDLE, long, CROWD)
                if kind != long or isinstance(server, Millpond)
            }
        )
        queries = {key: [float(len(outcome.latencies)) for outcome in found] for key, found in outcomes.items()}
        waits = nested({key: percentiles(found) | {"queries": queries[key]} for key, found in outcomes.items()})
        report.say(
            f"One client in a closed loop of single sentences, {seconds} s each; milliseconds, median of "
            f"{report.rounds} (least-most); the ratios are to the idle server, the median of the rounds' ratios. "
            f"{INT8} takes no request of {many:,} texts."
        )
        table = {
            f"{server}, {kind}": {
                "p50, ms": spread(found["p50"]),
                "p50 x idle": number(ratio(found["p50"], of[IDLE]["p50"])),
                "p99, ms": spread(found["p99"]),
                "p99 x idle": number(ratio(found["p99"], of[IDLE]["p99"])),
                "queries a round": f"{median(found['queries']):.0f}",
            }
            for server, of in waits.items()
            for kind, found in of.items()
        }
        report.table("a single query", table)
        report.say(f"{HOW} The single queries and the others come from two such processes.")
        report.servers(field)
    flat = {f"{server}, {kind}": found for server, of in waits.items() for kind, found in of.items()}
    panels = {f"{p}, ms": by for p, by in medians_by_column(flat, ("p50", "p99")).items()}
    title = "Latency of a single query among others"
    report.plot(rows(panels, f"{title} (lower is better)"), "fairness", title)
    report.keep(latency_ms=waits)
