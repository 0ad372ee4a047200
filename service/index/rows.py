"""Vectors in memory, in the order of their keys: cheap to append to and to take from, and never changed in place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final

import faiss as _typed_faiss
import numpy as np
from numpy.typing import NDArray

from service.arrays import Keys, Vectors
from service.cores import available_cores
from service.similarity import Metric

# FAISS's type information describes the C++ signatures under it, not those that Python sees.
faiss: Any = _typed_faiss

_CHUNK_BYTES: Final = 1 << 22
"""Size of a chunk: what a deletion copies, some tenths of a millisecond."""
_DENSE: Final = 16
"""Keys between the lowest and the highest for each that is there, up to which all of them are marked."""
_MOST_PENDING: Final = 1 << 12
"""Answers a query, beyond some times those wanted, that are collected from chunks before the worse are dropped."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """The first `length` rows of two buffers. The vectors of one key are never spread over two chunks."""

    key_buffer: Keys
    vector_buffer: Vectors
    length: int

    @property
    def keys(self) -> Keys:
        """The key of each row (n,)."""
        return self.key_buffer[: self.length]

    @property
    def vectors(self) -> Vectors:
        """The rows (n, dim)."""
        return self.vector_buffer[: self.length]

    @property
    def room(self) -> int:
        """Rows that still fit."""
        return len(self.key_buffer) - self.length

    @classmethod
    def empty(cls, size: int, dim: int) -> Chunk:
        """Return a chunk without rows that has room for `size`."""
        return cls(np.empty(size, np.int64), np.empty((size, dim), np.float32), 0)

    def extended(self, keys: Keys, vectors: Vectors) -> Chunk:
        """Return the chunk with rows after its own, in the same buffers; done once at most for each chunk."""
        end = self.length + len(keys)
        self.key_buffer[self.length : end] = keys
        self.vector_buffer[self.length : end] = vectors
        return Chunk(self.key_buffer, self.vector_buffer, end)

    def kept(self, mask: NDArray[np.bool_], size: int) -> Chunk:
        """Return a copy of the rows that `mask` (n,) chooses, in buffers for `size` rows or as many as there are."""
        keys, vectors = self.keys[mask], self.vectors[mask]
        if size <= len(keys):
            return Chunk(keys, vectors, len(keys))
        return Chunk.empty(size, vectors.shape[1]).extended(keys, vectors)


@dataclass(frozen=True)
class Rows:
    """Prepared vectors and their keys, ascending, in chunks. A change returns other rows, which share what is equal.

    `added` appends to the buffers of the last chunk, so that only the latest rows may be added to; rows that were
    taken before do not see it.
    """

    dim: int
    metric: Metric
    chunks: tuple[Chunk, ...] = ()
    length: int = 0
    count: int = 0
    """Different keys."""
    last: int | None = field(default=None, compare=False)
    """The highest key that was ever added."""

    @classmethod
    def of(cls, metric: Metric, keys: Keys, vectors: Vectors) -> Rows:
        """Return rows over prepared vectors (n, dim) and their ascending keys (n,), which are not copied."""
        dim, count, last = vectors.shape[1], distinct(keys), int(keys[-1]) if len(keys) else None
        return cls(dim, metric, (Chunk(keys, vectors, len(keys)),) if len(keys) else (), len(keys), count, last)

    @cached_property
    def keys(self) -> Keys:
        """The key of each row (n,)."""
        return np.concatenate([np.empty(0, np.int64), *(chunk.keys for chunk in self.chunks)])

    @property
    def nbytes(self) -> int:
        """Bytes of vectors and keys."""
        return self.length * (4 * self.dim + 8)

    def added(self, keys: Keys, vectors: Vectors) -> Rows:
        """Return these rows and `vectors` (n, dim) under `keys` (n,), never descending and above all added before."""
        if not len(keys):
            return self
        if np.any(np.diff(keys) < 0) or (self.last is not None and keys[0] <= self.last):
            raise ValueError("keys must ascend and lie above every key added before")
        chunks = list(self.chunks)
        start = 0
        while start < len(keys):
            stop = _whole(keys, start, chunks[-1].room if chunks else 0)
            if stop == start:
                run = int(np.searchsorted(keys, keys[start], "right")) - start
                chunks.append(Chunk.empty(max(self._size, run), self.dim))
            else:
                chunks[-1] = chunks[-1].extended(keys[start:stop], vectors[start:stop])
                start = stop
        length, count = self.length + len(keys), self.count + distinct(keys)
        return replace(self, chunks=tuple(chunks), length=length, count=count, last=int(keys[-1]))

    def without(self, keys: Keys) -> Rows:
        """Return these rows without those of `keys`; absent keys are ignored."""
        if not len(self.chunks) or not len(keys):
            return self
        keys = np.unique(keys)
        firsts = np.array([chunk.key_buffer[0] for chunk in self.chunks])
        touched = set(np.maximum(np.searchsorted(firsts, keys, "right") - 1, 0).tolist())
        chunks: list[Chunk] = []
        length, count = self.length, self.count
        for place, chunk in enumerate(self.chunks):
            if place in touched and (gone := held(chunk.keys, keys)).any():
                length -= int(gone.sum())
                count -= distinct(chunk.keys[gone])
                last = place == len(self.chunks) - 1
                chunk = chunk.kept(~gone, self._size if last else 0)
                if not chunk.length:
                    continue
                if chunks and chunks[-1].length + chunk.length <= self._size // 2:
                    joined = Chunk.empty(self._size, self.dim)
                    for part in (chunks.pop(), chunk):
                        joined = joined.extended(part.keys, part.vectors)
                    chunk = joined
            chunks.append(chunk)
        return replace(self, chunks=tuple(chunks), length=length, count=count)

    def after(self, key: int) -> Rows:
        """Return the rows of keys above `key`."""
        chunks = [chunk for chunk in self.chunks if chunk.keys[-1] > key]
        if chunks and chunks[0].keys[0] <= key:
            chunks[0] = chunks[0].kept(chunks[0].keys > key, self._size if len(chunks) == 1 else 0)
        length, count = sum(chunk.length for chunk in chunks), sum(distinct(chunk.keys) for chunk in chunks)
        return replace(self, chunks=tuple(chunks), length=length, count=count)

    def nearest(self, queries: Vectors, depth: int, chosen: NDArray[np.bool_] | None) -> tuple[Vectors, Keys]:
        """Return metrics and positions, (q, depth) each, of the best rows to prepared queries (q, dim), in no order.

        `chosen` (n,) are the rows that count, `depth` of them or more; which of equal ones are returned is open.
        """
        metrics = [np.empty((len(queries), 0), np.float32)]
        positions = [np.empty((len(queries), 0), np.int64)]
        start = pending = 0
        for chunk in self.chunks:
            bits = None if chosen is None else chosen[start : start + chunk.length]
            k = min(depth, chunk.length if bits is None else int(np.count_nonzero(bits)))
            if k:
                metric, place = knn(self.metric, queries, chunk.vectors, k, bits)
                metrics.append(metric)
                positions.append(place + start)
                pending += k
                if pending > 4 * depth + _MOST_PENDING:
                    best = self._best(np.concatenate(metrics, 1), np.concatenate(positions, 1), depth)
                    metrics, positions, pending = [best[0]], [best[1]], depth
            start += chunk.length
        return self._best(np.concatenate(metrics, 1), np.concatenate(positions, 1), depth)

    @property
    def _size(self) -> int:
        return max(1, _CHUNK_BYTES // (4 * self.dim))

    def _best(self, metrics: Vectors, positions: Keys, depth: int) -> tuple[Vectors, Keys]:
        if metrics.shape[1] <= depth:
            return metrics, positions
        by = -metrics if self.metric == "inner product" else metrics
        best = np.argpartition(by, depth - 1, axis=1)[:, :depth]
        return np.take_along_axis(metrics, best, 1), np.take_along_axis(positions, best, 1)


def knn(
    metric: Metric, queries: Vectors, vectors: Vectors, k: int, chosen: NDArray[np.bool_] | None = None
) -> tuple[Vectors, Keys]:
    """Return metrics and places, (q, k) each, of the `k` best of `vectors` (n, dim) to each query, best first.

    `chosen` (n,) are those that count, `k` of them or more. It is what FAISS's flat indexes do, on vectors that stay
    where they are.
    """
    found = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    compare = faiss.knn_inner_product if metric == "inner product" else faiss.knn_L2sqr
    arrays = (queries, vectors, *found)
    x, y, metrics, places = map(faiss.swig_ptr, arrays)
    sizes = queries.shape[1], len(queries), len(vectors), k
    selector = None if chosen is None else faiss.IDSelectorBitmap(np.packbits(chosen, bitorder="little"))
    with one_thread():
        if metric == "inner product":
            compare(x, y, *sizes, metrics, places, selector)
        else:
            compare(x, y, *sizes, metrics, places, None, selector)
    return found


def nearest_in(
    metric: Metric, queries: Vectors, blocks: Iterable[tuple[Keys, Vectors]], k: int
) -> tuple[Vectors, Keys]:
    """Return metrics and positions, (q, k) or less each, best first, of the nearest vectors in blocks to each query.

    A block is positions (n,) and prepared vectors (n, dim).
    """
    metrics, places = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
    for positions, vectors in blocks:
        found, at = knn(metric, queries, vectors, min(k, len(vectors)))
        metrics, places = np.concatenate([metrics, found], 1), np.concatenate([places, positions[at]], 1)
        order = np.argsort(-metrics if metric == "inner product" else metrics, 1, "stable")[:, :k]
        metrics, places = np.take_along_axis(metrics, order, 1), np.take_along_axis(places, order, 1)
    return metrics, places


def held(sorted_keys: Keys, keys: Keys) -> NDArray[np.bool_]:
    """Return which of `sorted_keys` (n,) are among `keys`."""
    if not len(sorted_keys) or not len(keys):
        return np.zeros(len(sorted_keys), bool)
    first, last = sorted_keys[0], sorted_keys[-1]
    if last - first < _DENSE * len(sorted_keys):  # a mark for each key between them takes a tenth of a search's time
        marks = np.zeros(last - first + 1, bool)
        marks[keys[(keys >= first) & (keys <= last)] - first] = True
        marked: NDArray[np.bool_] = marks[sorted_keys - first]
        return marked
    firsts, ends = np.searchsorted(sorted_keys, keys), np.searchsorted(sorted_keys, keys, "right")
    size = len(sorted_keys) + 1
    steps = np.bincount(firsts, minlength=size) - np.bincount(ends, minlength=size)
    among: NDArray[np.bool_] = steps[:-1].cumsum() > 0
    return among


def distinct(keys: Keys) -> int:
    """Return the number of different keys among sorted ones."""
    return int(np.count_nonzero(np.diff(keys))) + 1 if len(keys) else 0


def once(sorted_keys: Keys, count: int) -> Keys:
    """Return each of `count` different keys once."""
    if len(sorted_keys) == count:
        return sorted_keys
    found: Keys = sorted_keys[np.diff(sorted_keys, prepend=sorted_keys[0] - 1) > 0]
    return found


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep FAISS on the calling thread, and restore the thread's OpenMP setting afterwards.

    Requests already run in threads of their own; a team of OpenMP threads under each would only compete with them
    and with the encoder for the same cores. OpenMP keeps the setting per thread, so it is set around each search.
    """
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


@contextmanager
def half_the_cores() -> Iterator[None]:
    """Let FAISS use half of the cores on the calling thread, for what is built beside requests."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(max(1, available_cores() // 2))
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _whole(keys: Keys, start: int, room: int) -> int:
    """Return the highest stop, from `start` to `start + room`, that divides no key's run."""
    stop = min(start + room, len(keys))
    if start < stop < len(keys) and keys[stop - 1] == keys[stop]:
        stop = max(start, int(np.searchsorted(keys, keys[stop])))
    return stop
