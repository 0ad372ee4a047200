"""Collections of vectors that no model made: storing, searching, changing and opening them, by kind of index."""

from __future__ import annotations

import resource
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np

from benchmarks.report import Report, spread
from service.arrays import Vectors
from service.collections import Collection, Definition
from service.collections.embedded import EmbeddedEngine
from service.index import KINDS
from service.store import Document

DIM: Final = 384
CLUSTERS: Final = 1_000
QUERIES: Final = 200
CHANGES: Final = 50
SEARCHERS: Final = 8
BATCH: Final = 1_000
TEXT: Final = "a text of eight words stands for each"


def run(report: Report) -> None:
    """Measure, and fill the report."""
    count = report.size(200_000, 5_000)
    report.say(
        f"{count:,} vectors of {DIM} numbers, of unit length, from {CLUSTERS:,} Gaussian clusters, each with a text "
        f"of eight words, stored in requests of {BATCH:,}; one process for each row. Searches are for 10 of them, by "
        f"{QUERIES} vectors of the same clusters; recall is against `exact: true`. `stored`: documents a second "
        "until the last request is answered; `built`: until the index is built behind. Times in milliseconds, of "
        f"opening in seconds; resident memory in MB, all of the process. Median of {report.rounds} (least-most)."
    )
    found = report.interleave({kind: partial(apart, count, kind) for kind in sorted(KINDS)})
    table = {
        kind: {head: [figures[head] for figures in rounds] for head in rounds[0]} for kind, rounds in found.items()
    }
    report.table("index", table, spread)
    report.keep(search=found, vectors=count)


def apart(count: int, kind: str) -> dict[str, float]:
    """Measure one kind of index in a process of its own, so that its memory is its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure, count, kind).result()


def measure(count: int, kind: str) -> dict[str, float]:
    """Fill a collection, search and change it, and open it again, with the snapshot of its index and without."""
    rng = np.random.default_rng(0)
    centres = unit(rng.normal(size=(CLUSTERS, DIM)))
    queries = clustered(rng, centres, QUERIES)
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        collections = EmbeddedEngine(folder)
        definition = Definition("none", None, "none", "0" * 16, {})
        collection = collections.create("search", definition, DIM, kind)[0]
        began = time.perf_counter()
        for start in range(0, count, BATCH):
            put(
                collection,
                range(start, min(start + BATCH, count)),
                clustered(rng, centres, min(BATCH, count - start)),
            )
        found["stored"] = count / (time.perf_counter() - began)
        collections.wait_for_builds()
        found["built"] = count / (time.perf_counter() - began)
        collections.close()
        found["opened"], collections = timed(lambda: EmbeddedEngine(folder))
        found["memory"] = resident()
        collection = collections.get("search")
        taken, hits = zip(*(timed(partial(search, collection, query)) for query in queries), strict=True)
        found["search p50"], found["search p99"] = 1e3 * median(taken), 1e3 * float(np.quantile(taken, 0.99))
        exact = [search(collection, query, exact=True) for query in queries]
        found["recall"] = float(np.mean([len(one & other) / 10 for one, other in zip(hits, exact, strict=True)]))
        found["replace"] = 1e3 * median(replacing(collection, rng, centres, count))
        with searching(collection, queries):
            beside = replacing(collection, rng, centres, count)
        found[f"beside {SEARCHERS} searchers"], found["at most"] = 1e3 * median(beside), 1e3 * max(beside)
        gone = rng.choice(count, CHANGES, replace=False).tolist()
        found["delete"] = 1e3 * median(timed(partial(collection.delete, str(id_)))[0] for id_ in gone)
        collections.close()
        for snapshot in (folder / "indexes").glob("*"):
            snapshot.unlink()
        found["opened without snapshot"], collections = timed(lambda: EmbeddedEngine(folder))
        collections.close()
    return found


def put(collection: Collection, ids: range, vectors: Vectors) -> None:
    """Store documents."""
    collection.upsert([Document(str(id_), TEXT, {"n": id_}) for id_ in ids], vectors)


def search(collection: Collection, query: Vectors, *, exact: bool = False) -> set[str]:
    """Return the ids of the ten nearest."""
    return {hit.id for hit in collection.search(query[None], 10, exact=exact)[0]}


def replacing(collection: Collection, rng: np.random.Generator, centres: Vectors, count: int) -> list[float]:
    """Return the seconds that it takes to replace single documents."""
    return [
        timed(partial(put, collection, range(id_, id_ + 1), clustered(rng, centres, 1)))[0]
        for id_ in rng.integers(count, size=CHANGES).tolist()
    ]


@contextmanager
def searching(collection: Collection, queries: Vectors) -> Iterator[None]:
    """Let threads search without a pause."""
    ended = threading.Event()

    def work(first: int) -> None:
        turn = first
        while not ended.is_set():
            search(collection, queries[turn % len(queries)])
            turn += 1

    threads = [threading.Thread(target=work, args=(first,)) for first in range(SEARCHERS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds that a call takes, and what it returns."""
    began = time.perf_counter()
    result = call()
    return time.perf_counter() - began, result


def clustered(rng: np.random.Generator, centres: Vectors, count: int) -> Vectors:
    """Return unit vectors (count, dim) around some of the centres."""
    spread = rng.normal(scale=0.7 / DIM**0.5, size=(count, DIM))
    return unit(centres[rng.integers(len(centres), size=count)] + spread)


def unit(vectors: Any) -> Vectors:
    """Return vectors of length one."""
    normal: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return normal


def resident() -> float:
    """Return the resident memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6
