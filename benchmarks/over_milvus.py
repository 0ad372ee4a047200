"""Cranfield through the service over Milvus: exact search against the figures without it, and HNSW against exact."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.millpond import Millpond, millpond
from benchmarks.quality import score_searches
from benchmarks.report import Report, progress
from benchmarks.texts import copy_head, cranfield
from service.collections.milvus.names import alias_of
from tests.support import datasets
from tests.support.milvus import MilvusServer, missing_milvus

INDEXES: Final = ("flat", "hnsw")


def run(report: Report) -> None:
    """Measure, and fill the report."""
    if missing := missing_milvus():
        report.say(f"Left out: {missing}.")
        return
    with tempfile.TemporaryDirectory() as name:
        folder, corpus = Path(name), report.size(10_000, 100)
        source = copy_head(datasets.folder() / "cranfield", folder / "cranfield", ["corpus.jsonl"], corpus)
        milvus = MilvusServer(folder / "milvus")
        milvus.start()
        try:
            servers = (
                Millpond("Milvus", precision="fp32", milvus=milvus.uri),
                Millpond("embedded", precision="fp32"),
            )
            figures = {}
            for server in servers:
                settle = partial(_sealed, milvus) if server.name == "Milvus" else _as_it_is
                figures[server.name] = _measured(server, source, settle)
        finally:
            milvus.stop()
    report.say(
        "all-MiniLM-L6-v2 in fp32, through `millpond index` and `/collections/.../search`, on Milvus 2.3.5 beside "
        "the service. nDCG@10 is that of Cranfield's queries; the recall is the share of the ten best hits of `flat` "
        "that `hnsw` finds."
    )
    report.table("engine", figures, "{:.4f}".format)
    report.keep(figures=figures)


def _measured(server: Millpond, source: Path, settle: Callable[[str], None]) -> dict[str, float]:
    """Give the figures of one engine."""
    progress(f"cranfield: {server.name}")
    with server.serving(), tempfile.TemporaryDirectory() as folder:
        stored = Path(folder) / "stored.jsonl"
        for index in INDEXES:
            server.running.http.put(f"/collections/{index}", json={"index": index}).raise_for_status()
            filled = stored if stored.exists() else source  # the second one has the vectors of the first
            millpond("index", filled, "--collection", index, "--truncate", "--url", server.running.url)
            if not stored.exists():
                millpond("export", index, stored, "--vectors", "--url", server.running.url)
            if index != "flat":  # which has nothing to build
                settle(index)
        progress(f"cranfield: {server.name} searches")
        scores = {f"nDCG@10, {index}": score_searches(server, index)["ndcg@10"] / 100 for index in INDEXES}
        exact, found = (_nearest(server, index) for index in INDEXES)
    progress(f"cranfield: {server.name} {scores}")
    shared = [len(set(one) & set(other)) / len(one) for one, other in zip(exact, found, strict=True)]
    recall = sum(shared) / len(shared)
    progress(f"cranfield: {server.name} recall {recall:.4f}")
    return {**scores, "recall@10 of hnsw": recall}


def _sealed(milvus: MilvusServer, collection: str) -> None:
    """Wait until the vectors are in their index: Milvus compares what it was just given one by one."""
    client, alias = milvus.client(), alias_of(collection)
    client.flush(alias, timeout=120)
    until = time.monotonic() + 300
    while True:
        segments = client.list_loaded_segments(alias)
        if segments and all(each.state_name == "Sealed" and each.index_name for each in segments):
            break
        assert time.monotonic() < until, segments
        time.sleep(1)
    client.close()


def _as_it_is(collection: str) -> None:
    """Do nothing: the embedded engine is measured as it answers."""


def _nearest(server: Millpond, index: str) -> list[list[str]]:
    """Give the ids of the ten best hits of each query."""
    body = {"queries": list(cranfield().queries.values()), "k": 10, "include": []}
    answer = server.running.http.post(f"/collections/{index}/search", json=body).raise_for_status().json()
    return [[hit["id"] for hit in result["hits"]] for result in answer["results"]]
