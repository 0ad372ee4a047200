"""Millions of vectors in the index that takes the least memory: building it, what it holds, and searches over HTTP.

The store is filled in a process without HTTP, since what is measured is the index. Recall is against a comparison of
every vector, which is made meanwhile.
"""

from __future__ import annotations

import os
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.load import Client
from benchmarks.machine import usage_of
from benchmarks.millpond import Millpond
from benchmarks.report import Report, number, progress, spread
from benchmarks.search import CLIENTS, apart, over_http, started
from benchmarks.stored import K, Stored, disk_mb
from benchmarks.texts import Vectors
from benchmarks.vectors import DIM, Corpus, Nearest, recall
from service.collections import Definition
from service.collections.embedded import EmbeddedEngine
from service.collections.provenance import FOREIGN
from service.store import Document

INDEX: Final = "ivf"
NAME: Final = "vectors"
_TOLD: Final = 500_000
"""Vectors from one message to the next."""


def run(report: Report) -> None:
    """Measure, and fill the report; a million vectors take some five minutes."""
    count, seconds = report.vectors(5_000_000, 20_000), report.size(10, 1)
    corpus = Corpus(count)
    queries = corpus.queries(report.size(200, 20))
    with tempfile.TemporaryDirectory(prefix="millpond-benchmark-") as name, Client() as client:
        server = Millpond("Millpond", store=Path(name) / "store")
        empty = started(server)
        filled = apart(fill, server.store, corpus, INDEX, queries)
        truth = filled.pop("truth")
        again = started(server)
        with server.serving():
            stored = Stored(server, corpus, NAME)
            found = stored.found(queries)
            loads = {row: stored.load(queries, clients, seconds) for row, clients in CLIENTS.items()}
            searches = report.interleave({row: partial(server.measure, client, load) for row, load in loads.items()})
            memory, state = server.memory, stored.described()["index_state"]
        size = disk_mb(server.store)
    report.say(
        f"{corpus}, as documents without a text in a collection with the index `{INDEX}`. Times in milliseconds "
        "unless seconds are named, memory in MB and resident. Stored once, in a process without HTTP, which also "
        "makes the vectors:"
    )
    report.table("", {f"{count:,} vectors": filled}, number)
    report.note(
        [
            f"Ready {number(again['seconds'])} s after the start of the process, {number(empty['seconds'])} s with "
            "an empty store.",
            f"Resident when ready {number(again['memory, MB'])} MB, after the searches {number(memory)} MB, of which "
            f"the model and the libraries take {number(empty['memory, MB'])}. On the disk: {number(size)} MB.",
            f"Recall@{K} of {len(queries)} other vectors of the same clusters, against a comparison of every vector: "
            f"{recall(found, truth):.4f}; `index_state`: {state}.",
        ]
    )
    report.say(
        f"Searches over HTTP for {K} documents, {seconds} s of {len(queries)} queries in turn; median of "
        f"{report.rounds} (least-most):"
    )
    rows = {row: over_http(rounds) for row, rounds in searches.items()}
    report.table("", {row: {head: spread(values) for head, values in of.items()} for row, of in rows.items()})
    report.keep(filled=filled, started=again, memory=memory, disk=size, recall=recall(found, truth), searches=rows)


def fill(folder: Path, corpus: Corpus, index: str, queries: Vectors) -> dict[str, Any]:
    """Store a corpus and build its index; gives what that took, and as `truth` what is nearest to each query."""
    began, nearest = time.perf_counter(), Nearest(queries, K)
    with usage_of(os.getpid()) as usage:
        collections = EmbeddedEngine(folder)
        definition = Definition(None, None, None, FOREIGN, {"foreign": True})
        collection, _ = collections.create(NAME, definition, DIM, index, tokenizer=None)
        for start, vectors, clusters in corpus.batches():
            places = range(start, start + len(vectors))
            documents = [
                Document(f"{place}", "", corpus.metadata(place, cluster))
                for place, cluster in zip(places, clusters.tolist(), strict=True)
            ]
            collection.upsert(documents, vectors)
            nearest.show(np.array(places), vectors)
            if places.stop % _TOLD == 0:
                progress(f"lean: {places.stop:,} of {corpus.count:,} stored, {time.perf_counter() - began:.0f} s")
        stored = time.perf_counter() - began
        collections.wait_for_builds()
        built = time.perf_counter() - began
        collections.close()
    return {
        "stored, s": stored,
        "built, s": built,
        "CPU, s": usage.cpu,
        "at most, MB": usage.peak,
        "truth": nearest.ids,
    }
