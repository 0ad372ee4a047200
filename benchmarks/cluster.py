"""What Ray costs: replicas of `millpond cluster serve` on this machine's cores against `millpond serve`, in one run.

Both have the same cores: one replica has a thread for each, and as many replicas as there are cores have one each. It
takes an environment with Ray Serve, `pip install 'millpond[ray]'`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.encoder import MINILM
from benchmarks.load import HOW, Client
from benchmarks.millpond import Millpond
from benchmarks.report import Report, nested, number, progress, ratio, spread
from benchmarks.servers import Measured, by_round, field_of
from benchmarks.throughput import ALONE, CROWD, Kind, Row
from service.cores import available_cores
from tests.support.clusters import ClusterServer

ONE_MACHINE: Final = "millpond serve"
KINDS: Final = (CROWD, Kind("Cranfield", 8, 8), ALONE)


class Cluster(Millpond):
    """`millpond cluster serve` with a Ray cluster of its own on this machine."""

    def __init__(self, replicas: int, threads: int) -> None:
        several = "s" if replicas > 1 else ""
        super().__init__(f"{replicas} replica{several} of {threads} thread{'s' if threads > 1 else ''}")
        self._of_cluster = {
            "models": {"default": {"encoder": MINILM}},
            "batching": {"max_queued_seconds": 60.0},
            "cluster": {"replicas": replicas, "replica_cpus": float(threads)},
        }

    def launcher(self, folder: Path) -> ClusterServer:
        """Give what starts it."""
        return ClusterServer(folder, self._of_cluster)


def run(report: Report) -> None:
    """Measure, and fill the report."""
    cores = available_cores()
    seconds = report.size(15, 4)
    contestants: dict[tuple[str, str], Any] = {}
    candidates = [Millpond(ONE_MACHINE), Cluster(1, cores), Cluster(cores, 1)]
    with field_of(candidates) as field, Client() as client:

        def measure(row: Row) -> Measured:
            return row.server.measure(client, row.load(seconds))

        by_kind: Mapping[Kind, Sequence[Row]] = {kind: [Row(one, kind) for one in field.servers] for kind in KINDS}
        for kind, rows in by_kind.items():  # of one kind, one server after the other: neighbours in time are compared
            for row in rows:
                progress(f"warming {row.server.name} up, {kind.name}")
                row.warm_up(client, report.size(5, 1))
                contestants[row.server.name, kind.name] = partial(measure, row)
        found: dict[str, dict[str, list[Measured]]] = nested(report.interleave(contestants))
        show(report, found)
        report.servers(field)


def show(report: Report, found: Mapping[str, Mapping[str, Sequence[Measured]]]) -> None:
    """Fill the report with the rounds of each server."""
    report.say(
        "A load is *clients x texts a request*, of sentences like STS-B's or abstracts like Cranfield's, cut to 256 "
        f"tokens. Medians of {report.rounds} rounds (least-most), in which servers take turns. {HOW}"
    )
    rates = by_round(found, lambda each: each.outcome.rate)
    cpu = by_round(found, lambda each: each.cpu_ms)
    latencies = by_round(found, lambda each: 1000 * median(each.outcome.latencies))
    memory = by_round(found, lambda each: each.usage.resident)
    plain = rates.get(ONE_MACHINE, {})
    for kind in KINDS:
        rows = {}
        for name, of in rates.items():
            row = {"texts/s": spread(of[kind.name])}
            if name != ONE_MACHINE and plain:
                row["of one machine"] = number(ratio(of[kind.name], plain[kind.name]))
            row["CPU ms a text"] = spread(cpu[name][kind.name])
            row["p50 ms"] = spread(latencies[name][kind.name])
            row["memory MB"] = number(median(memory[name][kind.name]))
            rows[name] = row
        report.table(kind.name, rows, heads=("texts/s", "of one machine", "CPU ms a text", "p50 ms", "memory MB"))
    report.say("*Of one machine* is the median over the rounds of the ratio of texts/s to that of `millpond serve`.")
    report.keep(texts_per_second=rates, cpu_ms_a_text=cpu, p50_ms=latencies, memory_mb=memory)
