"""How vectors are coded in a graph, and linked: so that near ones are told apart, and each can be reached."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Final

import faiss as _typed_faiss
import numpy as np

from service.arrays import Keys, Vectors
from service.similarity import Similarity

faiss: Any = _typed_faiss

LINKS: Final = 32
"""Links of a vertex (M); twice as many on the lowest level. With 16, no effort finds more than 0.966 of the nearest
ten of a million vectors in clusters, parts of which nothing leads to; 32 find 0.986 with a third of the effort."""
_EFFORT: Final = 64
"""Candidates that are kept while a vertex is inserted (efConstruction)."""
_WIDER: Final = 0.1
"""Part of the range of each dimension that is added on both sides, for vectors to come."""
_MOST_BEYOND: Final = 1e-3
"""Share of numbers beyond the range of 8-bit codes from which on the codes are made anew."""
_NEAR: Final = 8
"""Vectors nearest by distance that each is linked with where products tell what is linked; 16 find no more."""
_LARGEST_HALF: Final = 65_504.0
"""Largest number of 16 bits (fp16)."""


class Linking(ABC):
    """A kind of graph, which FAISS's are of. It has no state."""

    @abstractmethod
    def empty(self, dim: int, blocks: Iterable[Vectors]) -> tuple[Any, float]:
        """Return a graph without vectors whose codes suit those in blocks (n, dim), and its scale.

        The scale is what vectors are multiplied by before they are inserted.
        """

    @abstractmethod
    def insert(self, hnsw: Any, vectors: Vectors, scale: float) -> None:
        """Insert prepared vectors (n, dim)."""

    @abstractmethod
    def made(self, hnsw: Any) -> bool:
        """Return whether a graph is of this kind, which one from an earlier version may not be."""

    @abstractmethod
    def covers(self, hnsw: Any, scale: float, blocks: Iterable[Vectors]) -> bool:
        """Return whether the codes of a graph of a scale suit further vectors, in blocks (n, dim)."""


class ByDistance(Linking):
    """8-bit codes that are compared by distance.

    The error of a distance between codes is only as large as the distance, so that those in a cluster of near
    vectors are told apart. That of a product is as large as the vectors, whose products there are all alike.
    """

    def empty(self, dim: int, blocks: Iterable[Vectors]) -> tuple[Any, float]:
        """Return a graph without vectors whose codes span the numbers of vectors in blocks (n, dim), and 1."""
        least, most = None, None
        for vectors in blocks:
            low, high = vectors.min(0), vectors.max(0)
            least = low if least is None else np.minimum(least, low)
            most = high if most is None else np.maximum(most, high)
        if least is None or most is None:
            least = most = np.zeros(dim, np.float32)
        hnsw = _graph(dim, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_L2)
        wider = _WIDER * (most - least) + np.float32(1e-30)
        hnsw.train(np.stack([least - wider, most + wider]))
        return hnsw, 1.0

    def insert(self, hnsw: Any, vectors: Vectors, scale: float) -> None:  # which is 1
        """Insert prepared vectors (n, dim)."""
        hnsw.add(vectors)

    def made(self, hnsw: Any) -> bool:
        """Return whether a graph compares by distance."""
        return bool(hnsw.metric_type == faiss.METRIC_L2)

    def covers(self, hnsw: Any, scale: float, blocks: Iterable[Vectors]) -> bool:
        """Return whether few numbers in blocks (n, dim) are beyond the range of the codes."""
        ranges = faiss.vector_to_array(_codes(hnsw).trained)
        least, most = ranges[: hnsw.d], ranges[: hnsw.d] + ranges[hnsw.d :]
        count = beyond = 0
        for vectors in blocks:
            count += vectors.size
            beyond += int(np.count_nonzero((vectors < least) | (vectors > most)))
        return beyond <= _MOST_BEYOND * count


class ByProduct(Linking):
    """16-bit codes that are compared by product, and links between those that are near by distance too.

    Products of 8-bit codes would be all alike in a cluster of near vectors. Links by product alone lead to the
    longest vectors of a cluster, and to most of the others nothing does.
    """

    def empty(self, dim: int, blocks: Iterable[Vectors]) -> tuple[Any, float]:
        """Return a graph without vectors, and the power of two that brings the largest number to from 0.5 to 1."""
        largest = max((float(np.abs(vectors).max(initial=0)) for vectors in blocks), default=0.0)
        _, exponent = math.frexp(largest)
        hnsw = _graph(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        return hnsw, 2.0 ** min(-exponent, 126)  # which float32 holds

    def insert(self, hnsw: Any, vectors: Vectors, scale: float) -> None:
        """Insert prepared vectors (n, dim), and link each with those nearest to it as well."""
        vectors = vectors * np.float32(scale)
        positions = np.arange(hnsw.ntotal, hnsw.ntotal + len(vectors))
        hnsw.add(vectors)
        _compare_by(hnsw, faiss.METRIC_L2)
        near = hnsw.search(vectors, _NEAR + 1, params=faiss.SearchParametersHNSW(efSearch=_EFFORT))[1]
        _compare_by(hnsw, faiss.METRIC_INNER_PRODUCT)
        _link(hnsw, positions, near)

    def made(self, hnsw: Any) -> bool:
        """Return whether a graph compares by products of 16-bit codes."""
        by_product = hnsw.metric_type == faiss.METRIC_INNER_PRODUCT
        return bool(by_product and _codes(hnsw).qtype == faiss.ScalarQuantizer.QT_fp16)

    def covers(self, hnsw: Any, scale: float, blocks: Iterable[Vectors]) -> bool:
        """Return whether all numbers in blocks (n, dim) are, once scaled, within 16 bits."""
        return all(scale * float(np.abs(vectors).max(initial=0)) <= _LARGEST_HALF for vectors in blocks)


_BY_DISTANCE: Final = ByDistance()
_BY_PRODUCT: Final = ByProduct()


def linking_of(similarity: Similarity) -> Linking:
    """Return the kind of graph that vectors prepared for a similarity are searched by."""
    return _BY_DISTANCE if similarity.orders_by_distance else _BY_PRODUCT


def _graph(dim: int, codes: int, metric: int) -> Any:
    hnsw = faiss.IndexHNSWSQ(dim, codes, LINKS, metric)
    hnsw.hnsw.efConstruction = _EFFORT
    return hnsw


def _codes(hnsw: Any) -> Any:
    return faiss.downcast_index(hnsw.storage).sq


def _compare_by(hnsw: Any, metric: int) -> None:
    """Let a graph that nobody else has be searched by another metric, over the links that it has."""
    hnsw.metric_type = hnsw.storage.metric_type = metric
    hnsw.hnsw.is_similarity = metric == faiss.METRIC_INNER_PRODUCT


def _link(hnsw: Any, positions: Keys, near: Keys) -> None:
    """Link positions (n,) with those near each (n, m), -1 for none, both ways, as far as there is room."""
    starts, ends = np.repeat(positions, near.shape[1]), near.ravel()
    there = (ends >= 0) & (ends != starts)
    both = np.concatenate([starts[there], ends[there]]), np.concatenate([ends[there], starts[there]])
    starts, ends = np.divmod(np.unique(both[0] * hnsw.ntotal + both[1]), hnsw.ntotal)
    # The lists of FAISS's graph themselves: those of a position begin at its offset, the lowest level first, and what
    # is left of a list is -1.
    offsets = faiss.rev_swig_ptr(hnsw.hnsw.offsets.data(), hnsw.hnsw.offsets.size())
    lists = faiss.rev_swig_ptr(hnsw.hnsw.neighbors.data(), hnsw.hnsw.neighbors.size())
    room = hnsw.hnsw.nb_neighbors(0)
    own = lists[offsets[starts].astype(np.int64)[:, None] + np.arange(room)]
    new = ~(own == ends[:, None]).any(1)
    starts, ends, taken = starts[new], ends[new], np.count_nonzero(own[new] >= 0, axis=1)
    places = taken + np.arange(len(starts)) - np.searchsorted(starts, starts)
    fits = places < room
    lists[offsets[starts[fits]].astype(np.int64) + places[fits]] = ends[fits]
