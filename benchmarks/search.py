"""A million vectors in a server: storing them, starting again, memory, and searches against FAISS alone.

FAISS searches the very graph that the server has, with the same effort, in a loop without anything around it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, TypeVar

import faiss as _typed_faiss

from benchmarks.load import Client, percentiles
from benchmarks.millpond import Millpond
from benchmarks.report import Report, number, progress, spread
from benchmarks.servers import Measured
from benchmarks.stored import K, Stored, disk_mb
from benchmarks.texts import Vectors
from benchmarks.vectors import DIM, Corpus
from service.index import snapshot
from service.index.graph import Graph
from service.similarity import COSINE

faiss: Any = _typed_faiss
T = TypeVar("T")

INDEX: Final = "hnsw"
"""What `auto` is from 20,000 vectors on."""
CLIENTS: Final = {"1 client": 1, "16 clients": 16}
CANDIDATES: Final = 2 * K + 10
"""As many as the service takes from the graph, to rank them by the vectors themselves."""
TOGETHER: Final = 16
"""Queries of one call of FAISS, to see what it gains."""
ALONE: Final = "FAISS alone"


def run(report: Report) -> None:
    """Measure, and fill the report; it takes some fifteen minutes."""
    count, seconds = report.vectors(1_000_000, 3_000), report.size(10, 1)
    corpus = Corpus(count)
    queries, sample = corpus.queries(report.size(1_000, 100)), report.size(100, 20)
    report.say(
        f"{corpus}, as documents without a text in a collection of `millpond serve` with the index `{INDEX}`. Times "
        "in milliseconds, memory in MB and resident, CPU in milliseconds of processor time a document or a query."
    )
    with tempfile.TemporaryDirectory(prefix="millpond-benchmark-") as name, Client() as client:
        server = Millpond("Millpond", store=Path(name) / "store")
        stored = Stored(server, corpus)
        with server.serving():
            pass  # converts the model where that was not done yet
        empty = [started(server) for _ in range(report.rounds)]
        with server.serving():
            stored.create(INDEX)
            filled = stored.fill(client)
        again = [started(server) for _ in range(report.rounds)]
        with server.serving():
            progress(f"comparing {sample} searches with exact ones")
            recall, state = stored.recall(queries[:sample]), stored.described()["index_state"]
            loads = {name: stored.load(queries, clients, seconds) for name, clients in CLIENTS.items()}
            contestants: dict[str, Callable[[], Any]] = {
                name: partial(server.measure, client, load) for name, load in loads.items()
            }
            contestants[ALONE] = partial(apart, bare, stored.indexes, queries)
            found = report.interleave(contestants)
            memory = server.memory
        size = disk_mb(server.store)
        for file in stored.indexes.iterdir():
            file.unlink()
        anew = [started(server)]
    report.say("Stored over HTTP by a client that also makes the vectors, once:")
    report.table("", {f"{count:,} vectors": filled.row()}, number)
    report.say(f"From the start of the process until it is ready, median of {report.rounds} (least-most):")
    starts = {"an empty store": empty, f"{count:,} vectors": again, "the same without a snapshot, once": anew}
    report.table("", {row: {head: [one[head] for one in of] for head in of[0]} for row, of in starts.items()}, spread)
    report.note(
        [
            f"Resident after the searches: {number(memory)} MB, of which the model and the libraries take "
            f"{number(empty[-1]['memory, MB'])}. On the disk: {number(size)} MB.",
            f"Recall@{K} of {sample} other vectors of the same clusters, against `exact: true`: {recall:.4f}; "
            f"`index_state`: {state}.",
        ]
    )
    report.say(
        f"Searches by vector for {K} documents, {seconds} s of {len(queries):,} queries in turn, the server, the "
        f"client and FAISS in processes of their own; median of {report.rounds} (least-most):"
    )
    report.table("", table(found), heads=("queries/s", "p50", "p99", "CPU", "CPU over FAISS", "client's CPU"))
    report.keep(filled=filled.row(), starts=starts, memory=memory, disk=size, recall=recall, searches=figures(found))


def started(server: Millpond) -> dict[str, float]:
    """Start a server and end it."""
    with server.serving():
        return {"seconds": server.running.ready_after, "memory, MB": server.memory}


def table(found: Mapping[str, Sequence[Any]]) -> dict[str, dict[str, str]]:
    """Make the rows of searches over HTTP and by FAISS alone."""
    own = figures(found)
    alone = own[ALONE]["CPU"]
    rows = {}
    for name, row in own.items():
        rows[name] = {head: spread(values) for head, values in row.items()}
        if name != ALONE:
            over = [one - other for one, other in zip(row["CPU"], alone, strict=True)]
            rows[name]["CPU over FAISS"] = spread(over)
    return rows


def figures(found: Mapping[str, Sequence[Any]]) -> dict[str, dict[str, list[float]]]:
    """Give what was measured in each round, by row and column."""
    rows: dict[str, dict[str, list[float]]] = {}
    for name, rounds in found.items():
        if name == ALONE:
            rows |= {row: {"CPU": [one[row] for one in rounds]} for row in rounds[0]}
        else:
            rows[name] = over_http(rounds)
    return rows


def over_http(rounds: Sequence[Measured]) -> dict[str, list[float]]:
    """Give rates, latencies and processor time of loads."""
    outcomes = [one.outcome for one in rounds]
    slowness = percentiles(outcomes)
    return {
        "queries/s": [one.rate for one in outcomes],
        "p50": slowness["p50"],
        "p99": slowness["p99"],
        "CPU": [one.cpu_ms for one in rounds],
        "client's CPU": [1000 * one.cpu / one.texts for one in outcomes],
    }


def apart(call: Callable[..., T], *arguments: Any) -> T:
    """Call a function in a process of its own, so that its memory and its threads are its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(call, *arguments).result()


def bare(folder: Path, queries: Vectors) -> dict[str, float]:
    """Search the graph of the snapshot in a folder, without a service: milliseconds of processor time a query."""
    (path,) = folder.glob("*.index")
    graph = Graph.of(snapshot.load(folder, path.name, DIM, COSINE, INDEX))
    parameters = faiss.SearchParametersHNSW(efSearch=max(graph.effort, CANDIDATES))
    faiss.omp_set_num_threads(1)

    def by(each: int) -> None:
        for start in range(0, len(queries), each):
            graph.hnsw.search(queries[start : start + each], CANDIDATES, params=parameters)

    def ranked() -> None:
        for query in queries:
            graph.search(query[None], K, None, len(graph))

    calls: dict[str, Callable[[], None]] = {
        ALONE: partial(by, 1),
        f"FAISS alone, {TOGETHER} queries a call": partial(by, TOGETHER),
        "FAISS, and ranked by the vectors themselves": ranked,
    }
    for call in calls.values():
        call()  # once to warm up
    return {name: 1000 * spent(call) / len(queries) for name, call in calls.items()}


def spent(call: Callable[[], None]) -> float:
    """Give the seconds of processor time that a call takes."""
    before = time.process_time()
    call()
    return time.process_time() - before
