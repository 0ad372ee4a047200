"""Centres of vectors (k-means) under a graph that finds the nearest, between whose steps a build can stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import faiss as _typed_faiss
import numpy as np

from service.arrays import Vectors
from service.index.rows import half_the_cores
from service.similarity import Metric

faiss: Any = _typed_faiss

_ITERATIONS: Final = 3
"""Beyond which recall hardly gains from more of them. Without any, a search must look into several times as many
lists."""
_LINKS: Final = 16
"""Links of a centre (M); twice as many on the lowest level."""
_INSERTING: Final = 40
"""Candidates that are kept while a centre is inserted (efConstruction)."""
_ASSIGNING: Final = 32
"""Candidates that are kept to find the centre of a vector (efSearch): 95 of 100 get the nearest."""
_STEP: Final = 4_096
"""Vectors that are assigned or inserted at once, after each of which a build can stop: some tenths of a second."""


def centres(metric: Metric, vectors: Vectors, count: int, go_on: Callable[[], None]) -> Any:
    """Return FAISS's graph (HNSW over 8-bit codes) of `count` centres, or less, of prepared vectors (n, dim).

    They begin as vectors by chance. By inner product they have length one, or long ones would draw all vectors to
    them. One without vectors is left out, so that equal vectors have few. `go_on` is called between the steps, and
    may raise.
    """
    rng = np.random.default_rng(count)
    found = _graph(metric, vectors[np.sort(rng.permutation(len(vectors))[:count])], go_on)
    nearest = np.empty(len(vectors), np.int64)
    for _ in range(_ITERATIONS):
        with half_the_cores():
            for start in range(0, len(vectors), _STEP):
                go_on()
                nearest[start : start + _STEP] = found.search(vectors[start : start + _STEP], 1)[1][:, 0]
        order = np.argsort(nearest, kind="stable")
        starts = np.flatnonzero(np.diff(nearest[order], prepend=-1))
        ends = np.append(starts[1:], len(order))
        means = [vectors[order[start:end]].mean(0) for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
        found = _graph(metric, np.stack(means), go_on)
    return found


def _graph(metric: Metric, found: Vectors, go_on: Callable[[], None]) -> Any:
    by_product = metric == "inner product"
    if by_product:
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        found = np.divide(found, lengths, out=np.zeros_like(found), where=lengths > 0)
    graph = faiss.IndexHNSWSQ(
        found.shape[1],
        faiss.ScalarQuantizer.QT_8bit,
        _LINKS,
        faiss.METRIC_INNER_PRODUCT if by_product else faiss.METRIC_L2,
    )
    graph.hnsw.efConstruction, graph.hnsw.efSearch = _INSERTING, _ASSIGNING
    graph.train(found)
    with half_the_cores():
        for start in range(0, len(found), _STEP):
            go_on()
            graph.add(found[start : start + _STEP])
    return graph
