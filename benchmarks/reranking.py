"""Cranfield searched by vectors, by words and by both, re-ranked by late interaction or not, and what that costs."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from torch import Tensor

from benchmarks.encoder import MINILM
from benchmarks.millpond import Millpond, millpond
from benchmarks.report import Report, progress, ratio
from benchmarks.texts import copy_head, cranfield
from pooling.tasks import retrieval
from service.embedding.embedder import Embedder
from service.embedding.late_interaction import MaxSim
from service.evaluation.comparison import Comparison, compare
from tests.support import datasets

MODES: Final = ("dense", "keyword", "hybrid")
DEPTH: Final = 20
METRIC: Final = retrieval.METRICS[0]
_AT_ONCE: Final = 15
"""Queries of one request: what it computes stays far below a server's timeouts."""


def run(report: Report) -> None:
    """Measure, and fill the report; it takes some minutes, most of them for passes over documents."""
    server = Millpond("Millpond")
    names, outcomes = [], []
    with tempfile.TemporaryDirectory() as name, server.serving():
        source = copy_head(
            datasets.folder() / "cranfield", Path(name) / "cranfield", ["corpus.jsonl"], report.size(10_000, 100)
        )
        millpond("index", source, "--collection", "cranfield", "--truncate", "--url", server.running.url)
        for mode in MODES:
            for more in ({}, {"rerank": {"by": "maxsim", "depth": DEPTH}}):
                names.append(f"{mode}, maxsim" if more else mode)
                progress(f"reranking: {names[-1]}")
                outcomes.append(_outcomes(server, mode=mode, **more))
        runs_on = server.runs_on
    data = cranfield()
    comparison = compare(data, names, np.stack(outcomes))
    report.say(
        f"Cranfield's {data.size} queries over its abstracts, through `/collections/.../search`; all-MiniLM-L6-v2, "
        f"{runs_on}, exact search; with `maxsim`, the first {DEPTH} hits are re-ranked. Mean of {METRIC} x 100, the "
        "difference to the same search without it and to dense search, with 95 % intervals:"
    )
    report.table("search", _rows(comparison))
    scores = {name: comparison.score(name) for name in names}
    costs = _costs(report)
    report.say(
        f"{DEPTH} abstracts scored by MaxSim for a query each, with the pass over the query, as a multiple of the "
        "encoder's pass over the same abstracts alone; the median of the rounds and of all queries:"
    )
    report.table("in this process", {"MaxSim": {what: f"{of:.2f}" for what, of in costs.items()}})
    report.keep(scores=scores, costs=costs)


def _outcomes(server: Millpond, **asked: Any) -> np.ndarray[Any, Any]:
    """Give the metrics of each query, (queries, metrics)."""
    data = cranfield()
    queries, rankings = [data.queries[query] for query in data.relevance], []
    for start in range(0, len(queries), _AT_ONCE):
        body = {"queries": queries[start : start + _AT_ONCE], "k": retrieval.CUT, "include": [], **asked}
        answer = server.running.http.post("/collections/cranfield/search", json=body, timeout=600)
        results = answer.raise_for_status().json()["results"]
        rankings += [[hit["id"] for hit in result["hits"]] for result in results]
    return retrieval.measure(rankings, list(data.relevance.values()))


def _rows(comparison: Comparison) -> dict[str, dict[str, str]]:
    low, high = comparison.intervals()
    to_dense = comparison.against("dense")
    rows = {}
    for place, name in enumerate(comparison.strategies):
        same = comparison.against(name.removesuffix(", maxsim"))[name]
        cells = {METRIC: _figures(comparison.scores[place, 0], low[place, 0], high[place, 0])}
        if name.endswith(", maxsim"):
            cells["against without"] = _figures(same.value, same.low, same.high, sign="+")
        if name != "dense":
            cells["against dense"] = _figures(to_dense[name].value, to_dense[name].low, to_dense[name].high, sign="+")
        rows[name] = cells
    return rows


def _figures(value: float, low: float, high: float, *, sign: str = "") -> str:
    return f"{100 * value:{sign}.2f} ({100 * low:{sign}.2f} to {100 * high:{sign}.2f})"


def _costs(report: Report) -> dict[str, float]:
    """Give the time that MaxSim takes, and the time on processors, relative to the encoder's pass alone."""
    data = cranfield()
    texts, queries = data.parts[0].texts, data.parts[1].texts[: report.size(30, 2)]
    groups = [texts[DEPTH * place : DEPTH * (place + 1)] for place in range(len(queries))]

    async def measured(embedder: Embedder) -> dict[str, list[tuple[float, float]]]:
        maxsim = MaxSim(embedder)
        found: dict[str, list[tuple[float, float]]] = {"alone": [], "maxsim": []}
        for _ in range(report.rounds):
            for query, group in zip(queries, groups, strict=True):
                alone = embedder.process(group, _nothing, role="document")
                found["alone"].append(await _timed(alone))
                found["maxsim"].append(await _timed(maxsim.score(query, group)))
        return found

    with Embedder.load(MINILM, runtime={"backend": "torch", "precision": "fp32"}) as embedder:
        embedder.encode(groups[0])
        found = asyncio.run(measured(embedder))
    (walls, cpus), (walls_alone, cpus_alone) = (zip(*found[kind], strict=True) for kind in ("maxsim", "alone"))
    return {"wall": ratio(walls, walls_alone), "processor": ratio(cpus, cpus_alone)}


async def _timed(work: Awaitable[object]) -> tuple[float, float]:
    begun, cpu = time.perf_counter(), time.process_time()
    await work
    return time.perf_counter() - begun, time.process_time() - cpu


def _nothing(states: Tensor, mask: Tensor, ids: Tensor) -> Sequence[None]:
    return [None] * len(mask)
