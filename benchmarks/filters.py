"""Filtered searches by the share of documents that match, against a scan of a collection of as many documents.

What matches is in every cluster alike, or it is whole clusters, of which the query's is none as a rule: a graph leads
away from those.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any, Final

from benchmarks.load import Client, percentiles
from benchmarks.millpond import Millpond
from benchmarks.report import Report, number, progress, ratio, spread
from benchmarks.stored import K, Stored
from benchmarks.vectors import PARTS, SPREAD_OUT, TOGETHER, Corpus

SHARES: Final = {"50 %": 500, "10 %": 100, "1 %": 10, "0.1 %": 1, "0 %": 0}
"""How many of the `PARTS` values of a field match."""
WHERE: Final = {"in all clusters": SPREAD_OUT, "in clusters of their own": TOGETHER}
INDEX: Final = "hnsw"


@dataclass(frozen=True)
class Searches:
    """Searches of a kind: those that a filter narrows, or a collection that is scanned."""

    stored: Stored
    share: str
    more: Mapping[str, Any]


def run(report: Report) -> None:
    """Measure, and fill the report; it takes some eight minutes."""
    count = report.vectors(300_000, 3_000)
    corpus = Corpus(count)
    queries, sample = corpus.queries(report.size(200, 20)), report.size(100, 20)
    server = Millpond("Millpond")
    with server.serving(), Client() as client:
        stored = Stored(server, corpus)
        stored.create(INDEX)
        stored.fill(client)
        contestants = {"no filter": Searches(stored, "100 %", {})}
        scans = {}
        for share, part in SHARES.items():
            scan = Stored(server, corpus, f"scan-{part}")
            scan.create("flat")
            scan.fill(client, count * part // PARTS)
            scans[share] = f"{share}, scanned"
            contestants[scans[share]] = Searches(scan, share, {})
            for where, field in WHERE.items():
                contestants[f"{share}, {where}"] = Searches(stored, share, {"filter": {field: {"$lt": part}}})
        recalls = {}
        for name, one in contestants.items():
            progress(f"comparing {sample} searches with exact ones: {name}")
            recalls[name] = one.stored.recall(queries[:sample], **one.more)
        loads = {name: one.stored.load(queries, 1, **one.more) for name, one in contestants.items()}
        found = report.interleave({name: partial(client.run, load) for name, load in loads.items()})
    slowness = {name: percentiles(rounds) for name, rounds in found.items()}
    report.say(
        f"{corpus}, in `millpond serve` with the index `{INDEX}`; searches for {K} by one client, each of "
        f"{len(queries)} queries once a round, in milliseconds; median of {report.rounds} rounds (least-most). "
        "Scanned: the same search, without a filter, of a collection `flat` that has as many documents as match. "
        f"Recall is against `exact: true` under the same filter, of {sample} queries. `to the scan`: the ratio of "
        "medians, of which no more than 5 is the aim."
    )
    rows = {}
    for name, one in contestants.items():
        rows[name] = {head: spread(values) for head, values in slowness[name].items() if head != "longest"}
        if one.more:
            rows[name]["to the scan"] = number(ratio(slowness[name]["p50"], slowness[scans[one.share]]["p50"]))
        if one.stored is stored:
            rows[name]["recall"] = f"{recalls[name]:.4f}"
    report.table("documents that match", rows, heads=("p50", "p99", "to the scan", "recall"))
    report.keep(latencies=slowness, recalls=recalls, p50={name: median(of["p50"]) for name, of in slowness.items()})
