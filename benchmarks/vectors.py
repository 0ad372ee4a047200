"""Unit vectors in clusters, which no model made: any number of them, the same for all that is measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from benchmarks.load import Request
from benchmarks.texts import Vectors, unit

DIM: Final = 384
A_CLUSTER: Final = 200
"""Vectors of a cluster on average."""
SPREAD: Final = 0.7
"""How far a vector lies from the centre of its cluster, which has length 1, before both are scaled to length 1."""
BATCH: Final = 1_000
"""Vectors that are made at once, and documents of a request where many are stored."""
PARTS: Final = 1_000
"""Values of the metadata."""
SPREAD_OUT, TOGETHER = "spread", "region"
"""Metadata from 0 to `PARTS` - 1: in every cluster alike, and the same in a whole cluster."""

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Corpus:
    """Unit vectors (count, DIM) around the centres of clusters; more can be drawn beyond the count.

    Equal corpora have equal vectors as long as they are drawn in the same batches.
    """

    count: int

    @cached_property
    def centres(self) -> Vectors:
        """Give the centres (clusters, DIM), of length 1."""
        return unit(_normal(0, max(1, self.count // A_CLUSTER)))

    def __str__(self) -> str:
        return f"{self.count:,} unit vectors of {DIM} numbers, from one Gaussian cluster for each {A_CLUSTER} of them"

    def batch(self, start: int, size: int = BATCH) -> tuple[Vectors, Numbers]:
        """Give the vectors (size, DIM) from a place on, and the cluster of each."""
        clusters = np.random.default_rng((1, start)).integers(len(self.centres), size=size)
        return unit(self.centres[clusters] + SPREAD * DIM**-0.5 * _normal(2, size, start)), clusters

    def batches(self) -> Iterator[tuple[int, Vectors, Numbers]]:
        """Give all vectors batch by batch, with the place of the first."""
        for start in range(0, self.count, BATCH):
            yield start, *self.batch(start, min(BATCH, self.count - start))

    def queries(self, count: int) -> Vectors:
        """Give other vectors (count, DIM) of the same clusters."""
        return self.batch(1 << 40, count)[0]

    def metadata(self, place: int, cluster: int) -> dict[str, int]:
        """Give the metadata of a vector."""
        return {SPREAD_OUT: place % PARTS, TOGETHER: cluster * PARTS // len(self.centres)}


@dataclass(frozen=True)
class Upserts:
    """Requests that store vectors of a corpus as documents whose ids are their places, made when they are asked for.

    Args:
        corpus: theirs.
        path: the route.
        places: of the vectors.
        each: documents of a request.

    """

    corpus: Corpus
    path: str
    places: range
    each: int = BATCH

    def __iter__(self) -> Iterator[Request]:
        for start in self.places[:: self.each]:
            vectors, clusters = self.corpus.batch(start, min(self.each, self.places.stop - start))
            documents = [
                {"id": f"{place}", "vector": vector, "metadata": self.corpus.metadata(place, cluster)}
                for place, (vector, cluster) in enumerate(zip(vectors, clusters.tolist(), strict=True), start)
            ]
            yield Request("POST", self.path, encoded({"documents": documents}), len(documents))


class Nearest:
    """The `k` vectors nearest to each query (q, DIM) by cosine, of all that are shown."""

    def __init__(self, queries: Vectors, k: int) -> None:
        self._queries, self._k = queries, k
        self._scores = np.empty((len(queries), 0), np.float32)
        self._places = np.empty((len(queries), 0), np.int64)

    def show(self, places: Numbers, vectors: Vectors) -> None:
        """Take unit vectors (n, DIM) and the place of each."""
        scores = np.concatenate([self._scores, self._queries @ vectors.T], 1)
        places = np.concatenate([self._places, np.broadcast_to(places, (len(self._queries), len(places)))], 1)
        if scores.shape[1] > self._k:
            best = np.argpartition(scores, -self._k, 1)[:, -self._k :]
            scores, places = np.take_along_axis(scores, best, 1), np.take_along_axis(places, best, 1)
        self._scores, self._places = scores, places

    @property
    def ids(self) -> list[set[str]]:
        """The ids of those that are nearest to each query."""
        return [set(map(str, row)) for row in self._places.tolist()]


def encoded(body: Mapping[str, Any]) -> str:
    """Give JSON of what may hold arrays."""
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY).decode()


def recall(found: list[set[str]], truth: list[set[str]]) -> float:
    """Give the share of the truth that was found, on average over the queries to which there is any."""
    shares = [len(one & other) / len(other) for one, other in zip(found, truth, strict=True) if other]
    return sum(shares) / len(shares) if shares else 1.0


def _normal(stream: int, size: int, start: int = 0) -> Vectors:
    return np.random.default_rng((stream, start)).standard_normal((size, DIM), np.float32)
