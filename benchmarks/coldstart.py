"""From the start of the process to the first answer, and the memory that it takes by then."""

from __future__ import annotations

import time
from functools import partial
from typing import Final

from benchmarks.millpond import millponds
from benchmarks.peers.infinity import infinities
from benchmarks.peers.txtai import Txtai
from benchmarks.plots import rows
from benchmarks.report import Report, medians_by_column, spread
from benchmarks.servers import Target, field_of
from benchmarks.texts import sts

HEADS: Final = {
    "ready": "ready, s",
    "first answer": "first answer, s",
    "memory, ready": "memory when ready, MB",
    "memory, answered": "memory after the answer, MB",
}


def run(report: Report) -> None:
    """Measure, and fill the report."""
    report.say(
        "Seconds from the start of the process until it says that it is ready, and until the first sentence is "
        "answered; resident memory of all its processes, in MB, at both moments. Converted models are in their "
        f"cache from a start before. Median of {report.rounds} (least-most)."
    )
    # The first start of each is not measured: it converts models, which stay in a cache, and shows what can run here.
    with field_of([*millponds(), *infinities(), Txtai()]) as field:
        report.servers(field)
    sentence = sts().first[0]
    rounds = report.interleave({server.name: partial(first_answer, server, sentence) for server in field.servers})
    found = {one: {figure: [each[figure] for each in figures] for figure in HEADS} for one, figures in rounds.items()}
    table = {one: {HEADS[figure]: values for figure, values in figures.items()} for one, figures in found.items()}
    report.table("cold start", table, spread)
    panels = medians_by_column(table, [head for head in HEADS.values() if "answer" in head])
    title = "Cold start and memory"
    report.plot(rows(panels, f"{title} (lower is better)"), "coldstart", title)
    report.keep(coldstart=found)


def first_answer(server: Target, sentence: str) -> dict[str, float]:
    """Start a server, ask it once, and end it."""
    with server.serving():
        ready, memory = server.running.ready_after, server.memory
        asked = time.perf_counter()
        server.embed([sentence])
        answered = ready + time.perf_counter() - asked
        return dict(zip(HEADS, (ready, answered, memory, server.memory), strict=True))
