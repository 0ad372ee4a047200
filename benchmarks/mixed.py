"""Searches beside changes: while many documents are stored, single ones replaced or deleted, or many changed at once.

Searching clients wait for each answer. Single changes come at a fixed rate, and their latency counts from when they
were due.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

import numpy as np

from benchmarks.load import Client, Load, Outcome, Request, percentiles
from benchmarks.millpond import Millpond
from benchmarks.report import Report, number, ratio, spread
from benchmarks.stored import K, Stored
from benchmarks.vectors import BATCH, PARTS, SPREAD_OUT, Corpus, Upserts, encoded

INDEX: Final = "hnsw"
SEARCHERS: Final = 8
RATE: Final = 50
"""Single changes a second."""
CHANGERS: Final = 16
"""Connections for them, so that one that waits holds up no other."""
EACH, IN_FLIGHT = 64, 2
"""As `millpond index` sends documents."""
SEARCH: Final = f"searches by {SEARCHERS} clients"
REPLACE: Final = f"one replaced, {RATE}/s"
DELETE: Final = f"one deleted, {RATE}/s"
HEALTH: Final = f"/health, {RATE}/s"
INGEST: Final = f"{EACH} stored a request"
ALONE: Final = "alone"


def run(report: Report) -> None:
    """Measure, and fill the report; it takes some ten minutes."""
    count, seconds = report.vectors(300_000, 3_000), report.size(10, 1)
    corpus = Corpus(count)
    server = Millpond("Millpond")
    with server.serving(), Client() as client, Client() as others:
        stored = Stored(server, corpus)
        stored.create(INDEX)
        stored.fill(client)
        searches = stored.load(corpus.queries(report.size(1_000, 100)), SEARCHERS, seconds)
        sent = Changes(stored, seconds)
        changes: dict[str, Callable[[], Load]] = {
            REPLACE: sent.replacements,
            DELETE: sent.deletions,
            HEALTH: sent.checks,
            INGEST: sent.ingest,
        }

        def together(change: str) -> dict[str, Outcome]:
            busy = others.start(changes[change]())
            searched = client.run(searches)
            changed = busy.result()
            if change == INGEST:
                stored.settle()
            return {SEARCH: searched, change: changed}

        contestants: dict[tuple[str, str], Callable[[], dict[str, Outcome]]] = {
            (SEARCH, ALONE): lambda: {SEARCH: client.run(searches)}
        }
        for change in (REPLACE, DELETE):
            contestants[change, ALONE] = partial(lambda name: {name: others.run(changes[name]())}, change)
        for change in changes:
            contestants[SEARCH, change] = partial(together, change)
        found = by_row(report.interleave(contestants))

        def beside(change: Callable[[], Load] | None) -> tuple[Outcome, float]:
            searching = client.start(stored.load(corpus.queries(report.size(1_000, 100)), 1, seconds))
            took = 0.0 if change is None else others.run(change()).seconds
            searched = searching.result()
            stored.settle()
            return searched, took

        large = report.interleave({name: partial(beside, change) for name, change in sent.large().items()})
    report.say(
        f"{corpus}, in `millpond serve` with the index `{INDEX}`. {SEARCHERS} clients search for {K} without a "
        f"pause. Beside them single documents with a vector are replaced or deleted, {RATE} a second, or new ones "
        f"stored as `millpond index` does, {EACH} a request and {IN_FLIGHT} requests at once, and indexed. "
        f"Latency in milliseconds, of single changes from when they were due; median of {report.rounds} rounds of "
        f"{seconds} s (least-most)."
    )
    slowness = {row: percentiles(outcomes) for row, outcomes in found.items()}
    idle = slowness[f"{SEARCH}, {ALONE}"]["p99"]
    rows = {
        row: {head: spread(values) for head, values in slowness[row].items()}
        | {"documents or requests/s": spread([one.rate for one in outcomes])}
        | ({"p99 to that alone": number(ratio(slowness[row]["p99"], idle))} if row.startswith(SEARCH) else {})
        for row, outcomes in found.items()
    }
    report.table("", rows)
    report.say(
        f"One client searches for {seconds} s, in which one request changes many documents: seconds from that "
        "request to its answer, and milliseconds of the searches."
    )
    pauses = {name: percentiles([searched for searched, _ in rounds]) for name, rounds in large.items()}
    report.table(
        "",
        {
            name: ({"seconds": spread([took for _, took in rounds])} if any(took for _, took in rounds) else {})
            | {head: spread(values) for head, values in pauses[name].items()}
            for name, rounds in large.items()
        },
        heads=["seconds", "p50", "p99", "longest"],
    )
    report.keep(latencies=slowness, pauses=pauses)


class Changes:
    """Loads of so many seconds, none of which sends what another has sent."""

    def __init__(self, stored: Stored, seconds: int) -> None:
        self._stored, self._seconds = stored, seconds
        self._count = stored.corpus.count
        self._order = iter(np.random.default_rng(3).permutation(self._count).tolist())
        self._next = self._count

    def replacements(self) -> Load:
        """Give other vectors to single documents."""
        return self._paced(self._replaced(place) for place in self._places())

    def deletions(self) -> Load:
        """Delete single documents."""
        path = f"{self._stored.path}/documents/delete"
        return self._paced(Request("POST", path, encoded({"ids": [f"{place}"]})) for place in self._places())

    def checks(self) -> Load:
        """Ask whether the server lives."""
        return self._paced(Request("GET", "/health") for _ in range(RATE * self._seconds))

    def ingest(self) -> Load:
        """Store new documents; more than it takes in that time, of which the rest is not sent."""
        start, self._next = self._next, self._next + 5_000 * self._seconds
        new = Upserts(self._stored.corpus, f"{self._stored.path}/documents", range(start, self._next), EACH)
        return self._load(new, IN_FLIGHT, seconds=self._seconds, lazy=True)

    def large(self) -> dict[str, Callable[[], Load] | None]:
        """Change many documents with one request, by what that does."""
        documents = f"{self._stored.path}/documents"
        sixth, twelfth = PARTS // 6, PARTS // 12
        deleted = (
            {"$gte": start, "$lt": start + twelfth} for start in range(PARTS - twelfth, sixth + twelfth, -twelfth)
        )
        marks = iter(range(self._count))

        def metadata() -> Load:
            change = {"filter": {SPREAD_OUT: {"$lt": sixth}}, "merge": {"mark": next(marks)}}
            return self._load([Request("POST", f"{documents}/metadata", encoded(change))], 1)

        def delete() -> Load:
            change = {"filter": {SPREAD_OUT: next(deleted)}}
            return self._load([Request("POST", f"{documents}/delete", encoded(change))], 1)

        def store() -> Load:
            start, self._next = self._next, self._next + BATCH
            return self._load(Upserts(self._stored.corpus, documents, range(start, self._next)), 1, lazy=True)

        return {
            ALONE: None,
            f"metadata of {self._count * sixth // PARTS:,} changed": metadata,
            f"{self._count * twelfth // PARTS:,} deleted by a filter": delete,
            f"{BATCH:,} stored": store,
        }

    def _paced(self, requests: Iterator[Request]) -> Load:
        return self._load(list(requests), CHANGERS, rate=RATE)

    def _load(self, requests: Any, clients: int, **more: Any) -> Load:
        return Load(self._stored.port, requests, clients, **more)

    def _places(self) -> Iterator[int]:
        for _ in range(math.ceil(RATE * self._seconds)):
            yield next(self._order)

    def _replaced(self, place: int) -> Request:
        (vector,), (cluster,) = self._stored.corpus.batch(2 * self._count + place, 1)
        document = {"id": f"{place}", "vector": vector, "metadata": self._stored.corpus.metadata(place, int(cluster))}
        return Request("POST", f"{self._stored.path}/documents", encoded({"documents": [document]}))


def by_row(found: Mapping[tuple[str, str], Sequence[Mapping[str, Outcome]]]) -> dict[str, list[Outcome]]:
    """Give what was measured side by side as rows of their own, by what was beside it."""
    rows: dict[str, list[Outcome]] = {}
    for (one, other), rounds in found.items():
        for name in rounds[0]:
            beside = other if other == ALONE else f"beside {other if name == one else one}"
            rows[f"{name}, {beside}"] = [outcomes[name] for outcomes in rounds]
    return rows
