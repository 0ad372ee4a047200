"""A corpus as a collection of a server: stored, described and searched over HTTP."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.load import Client, Load, Request
from benchmarks.machine import cpu_seconds, usage_of
from benchmarks.millpond import Millpond
from benchmarks.report import progress
from benchmarks.texts import Vectors
from benchmarks.vectors import Corpus, Upserts, encoded, recall

K: Final = 10
IN_FLIGHT: Final = 3
"""Requests at once where many documents are stored, so that the server waits for none to be made."""
_PART: Final = 100_000
"""Vectors of a load."""
_IDLE: Final = 0.1
"""Seconds of processor time a second that a server may take which builds nothing."""


@dataclass(frozen=True)
class Filled:
    """What it took to store a corpus.

    Args:
        count: documents.
        stored: seconds until the last request was answered.
        built: seconds until the index was built, too.
        cpu: seconds of the server's processor time.
        client: seconds of the client's, which makes the vectors.
        peak: the most memory of the server, in MB.

    """

    count: int
    stored: float
    built: float
    cpu: float
    client: float
    peak: float

    def row(self) -> dict[str, float]:
        """Give the cells of a table."""
        return {
            "stored/s": self.count / self.stored,
            "built/s": self.count / self.built,
            "server's CPU": 1000 * self.cpu / self.count,
            "client's CPU": 1000 * self.client / self.count,
            "at most": self.peak,
        }


class Stored:
    """A corpus in a collection of a server that runs, or in a part of it the first vectors of the corpus.

    Args:
        server: which.
        corpus: what is stored.
        name: of the collection.

    """

    def __init__(self, server: Millpond, corpus: Corpus, name: str = "vectors") -> None:
        self._server, self.corpus = server, corpus
        self.path = f"/collections/{name}"

    @property
    def port(self) -> int:
        """Where the server listens."""
        return self._server.running.port

    def create(self, index: str) -> None:
        """Create the collection, with an index of a kind."""
        body = encoded({"dimension": self.corpus.centres.shape[1], "index": index, "keyword": None})
        json = {"content-type": "application/json"}
        self._server.running.http.put(self.path, content=body, headers=json).raise_for_status()

    def fill(self, client: Client, count: int | None = None) -> Filled:
        """Store all vectors, or so many, and wait until the index is built."""
        count = self.corpus.count if count is None else count
        began, spent = time.perf_counter(), 0.0
        with usage_of(self._server.running.process.pid) as usage:
            for start in range(0, count, _PART):
                upserts = Upserts(self.corpus, f"{self.path}/documents", range(start, min(start + _PART, count)))
                spent += client.run(Load(self.port, upserts, IN_FLIGHT, lazy=True)).cpu
                stored = time.perf_counter() - began
                progress(f"{self.path}: {upserts.places.stop:,} of {count:,} stored, {stored:.0f} s")
            stored = time.perf_counter() - began
            self.settle()
            built = time.perf_counter() - began
        return Filled(count, stored, built, usage.cpu, spent, usage.peak)

    def settle(self) -> None:
        """Wait until the server builds nothing any more."""
        pid, began = self._server.running.process.pid, time.perf_counter()
        while True:
            before = cpu_seconds(pid)
            time.sleep(1)
            if cpu_seconds(pid) - before < _IDLE and not self._is_building():
                break
        progress(f"{self.path}: built, {time.perf_counter() - began:.0f} s")

    @property
    def indexes(self) -> Path:
        """The folder with the snapshots of indexes."""
        return self._server.store / "indexes"

    def _is_building(self) -> bool:
        return "building" in self.described()["index_state"] or any(self.indexes.glob("*.partial"))

    def described(self) -> Any:
        """Give what the server says of the collection."""
        return self._server.ask(Request("GET", self.path))

    def request(self, query: Vectors, **more: Any) -> Request:
        """Search by a vector (DIM,) for `K` documents."""
        return Request("POST", f"{self.path}/search", encoded({"vector": query, "k": K, **more}))

    def load(self, queries: Vectors, clients: int, seconds: float | None = None, **more: Any) -> Load:
        """Make a load of searches, each once or for so many seconds."""
        requests = [self.request(query, **more) for query in queries]
        return Load(self.port, requests, clients, seconds=seconds)

    def found(self, queries: Vectors, **more: Any) -> list[set[str]]:
        """Give the ids that searches find."""
        return [set(self._server.found(self.request(query, **more))) for query in queries]

    def recall(self, queries: Vectors, **more: Any) -> float:
        """Give the recall of searches, against exact ones."""
        return recall(self.found(queries, **more), self.found(queries, exact=True, **more))


def disk_mb(folder: Path) -> float:
    """Add up the sizes of all files below a folder, in MB."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
