"""Centres of vectors (k-means), between whose steps a build can stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import faiss as _typed_faiss
import numpy as np

from service.arrays import Vectors
from service.index.rows import half_the_cores
from service.similarity import Metric

faiss: Any = _typed_faiss

_ITERATIONS: Final = 8
"""Beyond which recall no longer gains from more of them."""
_STEP: Final = 8_192
"""Vectors that are assigned at once: a tenth of a second or two."""


def flat(metric: Metric, vectors: Vectors) -> Any:
    """Return FAISS's exact index over prepared vectors (n, dim)."""
    index = faiss.IndexFlat(
        vectors.shape[1], faiss.METRIC_INNER_PRODUCT if metric == "inner product" else faiss.METRIC_L2
    )
    index.add(vectors)
    return index


def centres(metric: Metric, vectors: Vectors, count: int, go_on: Callable[[], None]) -> Vectors:
    """Return `count` centres (count, dim) of as many prepared vectors (n, dim) or more.

    By inner product they have length one, or long ones would draw all vectors to them. `go_on` is called between the
    steps, and may raise.
    """
    rng = np.random.default_rng(count)
    found = _sized(metric, vectors[np.sort(rng.permutation(len(vectors))[:count])])
    nearest = np.empty(len(vectors), np.int64)
    for _ in range(_ITERATIONS):
        index = flat(metric, found)
        with half_the_cores():
            for start in range(0, len(vectors), _STEP):
                go_on()
                nearest[start : start + _STEP] = index.search(vectors[start : start + _STEP], 1)[1][:, 0]
        order = np.argsort(nearest, kind="stable")
        used, starts = np.unique(nearest[order], return_index=True)
        moved = vectors[rng.integers(len(vectors), size=count)]  # a centre without vectors begins anew elsewhere
        ends = np.append(starts[1:], len(order))
        for place, start, end in zip(used.tolist(), starts.tolist(), ends.tolist(), strict=True):
            moved[place] = vectors[order[start:end]].mean(0)
        found = _sized(metric, moved)
    return found


def _sized(metric: Metric, vectors: Vectors) -> Vectors:
    if metric == "squared distance":
        return vectors
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    sized: Vectors = np.divide(vectors, lengths, out=vectors, where=lengths > 0)
    return sized
