"""A graph (HNSW) over 8-bit codes of vectors, whose answers are ranked again by the vectors themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import faiss as _typed_faiss
import numpy as np
from numpy.typing import NDArray

from service.arrays import Keys, Ordinals, Vectors
from service.index.flat import ExactView, firsts, merged
from service.index.rows import Rows, distinct, held, knn, once, one_thread
from service.index.vectorfile import BLOCK, VectorFile
from service.similarity import Similarity

faiss: Any = _typed_faiss

LINKS: Final = 16
"""Links of a vertex (M); twice as many on the lowest level."""
EFFORT: Final = 64
"""Candidates that are kept while a vertex is inserted (efConstruction)."""
_EFFORTS: Final = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
"""Candidates that are kept in a search (efSearch), of which the least is chosen that reaches the recall."""
_SAMPLE: Final = 200
"""Vectors that are searched for to measure the recall."""
_MEASURED: Final = (10, 100)
"""How many neighbours of each are looked for, for the effort of small and of large answers."""
_MOST_BREADTH: Final = 500
"""Vectors that a graph is asked for at most. What was measured says nothing about far more than 100 neighbours, for
which a search must leave the cluster that it is in."""

# The costs of a search in microseconds, from 200,000 x 384 on one core; they choose between two ways to one result.
_COST_OF_EFFORT: Final = 2.4
_COST_OF_CODE: Final = 0.064
_COST_OF_SKIPPING: Final = 0.004
_SPARSE: Final = 50
"""One of how many keys is allowed at most, where they are looked up one by one."""
_FEW: Final = 500
"""Vectors that are read and compared themselves rather than their codes."""


@dataclass(frozen=True, eq=False)
class Graph:
    """Vectors at positions in the order of their keys: a graph over their codes, and a file of the vectors.

    Args:
        similarity: what they are compared by.
        keys: the key of each (n,), ascending.
        file: the prepared vectors.
        hnsw: FAISS's index over their codes; never changed.
        effort: candidates that a search keeps at least.
        stretch: how many it keeps for each that it looks at.
        recall: as measured with these.
        measured: how many vectors there were then.
        name: of the file; None for one without a name.
    """

    similarity: Similarity
    keys: Keys
    file: VectorFile
    hnsw: Any
    effort: int = 0
    stretch: float = 1.0
    recall: float = 0.0
    measured: int = 0
    name: str | None = None

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def memory_bytes(self) -> int:
        """Bytes of codes, links and keys."""
        links = int(self.hnsw.hnsw.neighbors.size()) * 4 + int(self.hnsw.hnsw.offsets.size()) * 8
        return int(self._codes.code_size) * len(self) + links + int(self.keys.nbytes)

    @cached_property
    def _codes(self) -> Any:
        return faiss.downcast_index(self.hnsw.storage)

    def search(
        self,
        queries: Vectors,
        wanted: int,
        chosen: NDArray[np.bool_] | None,
        total: int,
        *,
        grouped: bool = False,
    ) -> tuple[Vectors, Keys, Ordinals]:
        """Return scores, keys and ordinals, (q, wanted) each, of the best vectors to prepared queries (q, dim).

        `chosen` (n,) are the vectors that count, None for all; there are `total` of them, and `wanted` of them or of
        their keys at least. They are searched by the graph, or their codes one by one where that is quicker. A query
        to which the graph finds few of them, since they lie elsewhere, is compared with their codes too.
        """
        found = np.empty((len(queries), wanted), np.float32), np.empty((len(queries), wanted), np.int64)
        left = np.arange(len(queries))
        depth = min(_breadth(wanted), total)
        by_graph = True
        while len(left):
            breadth = depth if chosen is None else int(1.5 * depth * len(self) / total) + 1
            effort = max(self.effort, int(self.stretch * breadth))
            scanning = _COST_OF_CODE * total + _COST_OF_SKIPPING * len(self)
            by_graph = by_graph and depth < total and breadth <= _MOST_BREADTH and _COST_OF_EFFORT * effort < scanning
            if by_graph:
                answers = self._visited(queries[left], breadth, effort)
            else:
                answers = self._scanned(queries[left], depth, chosen)
            unsettled, deeper = [], False
            for row, places in zip(left.tolist(), answers, strict=True):
                if by_graph:
                    places = places[places >= 0] if chosen is None else places[(places >= 0) & chosen[places]]
                    if len(places) < depth:
                        unsettled.append(row)
                        continue
                scores, places = self.ranked(queries[row], places[:depth])
                if grouped:
                    first = firsts(self.keys[places][None])[0]
                    scores, places = scores[first], places[first]
                if len(places) < wanted:
                    unsettled.append(row)
                    deeper = True
                    continue
                found[0][row], found[1][row] = scores[:wanted], places[:wanted]
            left = np.array(unsettled, np.int64)
            depth = min(depth * 4, total) if deeper else depth
            by_graph = by_graph and deeper
        keys = self.keys[found[1]]
        return found[0], keys, found[1] - np.searchsorted(self.keys, keys)

    def search_exactly(
        self, queries: Vectors, k: int, positions: Keys | None = None, *, grouped: bool = False
    ) -> tuple[Vectors, Keys, Ordinals]:
        """Return what an exact search finds among the vectors at ascending positions, all by default.

        All vectors of a key are among them, or none.
        """
        empty = np.empty((len(queries), 0))
        best: tuple[Vectors, Keys, Ordinals] = (
            empty.astype(np.float32),
            empty.astype(np.int64),
            empty.astype(np.int64),
        )
        for keys, vectors in self.blocks(positions if k else np.empty(0, np.int64)):
            rows = Rows.of(self.similarity.metric, keys, vectors)
            part = ExactView(self.similarity, rows).search_prepared(queries, k, grouped=grouped)
            best = merged(k, [best, part])
        return best

    def blocks(self, positions: Keys | None = None) -> Iterator[tuple[Keys, Vectors]]:
        """Yield keys and vectors at ascending positions, all by default, in blocks that divide no key's run."""
        if positions is None:
            positions = np.arange(len(self))
        size = max(1, BLOCK // (4 * self.file.dim))
        keys = self.keys[positions]
        start = 0
        while start < len(positions):
            stop = min(start + size, len(positions))
            if stop < len(positions):
                stop = int(np.searchsorted(keys, keys[stop - 1], "right"))
            yield keys[start:stop], self.file.rows(positions[start:stop])
            start = stop

    def ranked(self, query: Vectors, positions: Keys) -> tuple[Vectors, Keys]:
        """Return the scores of the vectors at positions to one query (dim,), and the positions, best first."""
        positions = np.sort(positions)
        if not len(positions):
            return np.empty(0, np.float32), positions
        vectors = self.file.rows(positions)
        metrics, places = knn(self.similarity.metric, query[None], vectors, len(positions))
        scores, positions = self.similarity.scores(metrics[0]), positions[places[0]]
        order = np.lexsort((positions, -scores))
        return scores[order], positions[order]

    def tuned(self, recall: float, stopped: Callable[[], bool]) -> Graph | None:
        """Return the graph with the least effort that reaches a recall, or with what comes nearest.

        It aims at half of the misses, since queries are not as the vectors that it is measured with. None where
        `stopped` became true.
        """
        if len(self) < 2:
            return replace(self, effort=_EFFORTS[0], recall=1.0, measured=len(self))
        sample = np.sort(np.random.default_rng(len(self)).permutation(len(self))[:_SAMPLE])
        queries = self.file.rows(sample)
        most = min(max(_MEASURED), len(self) - 1)
        truth = self._truth(queries, most + 1, stopped)
        if truth is None:
            return None
        exact = [
            self.ranked(query, places[places != own])[0]
            for query, own, places in zip(queries, sample.tolist(), truth, strict=True)
        ]
        reached, recalls = [], []
        for k in _MEASURED:
            k = min(k, most)
            breadth = _breadth(k + 1)
            best = _EFFORTS[0], -1.0
            for effort in _EFFORTS:
                if stopped():
                    break
                hits = 0
                answers = self._visited(queries, breadth, effort)
                for query, own, scores, places in zip(queries, sample.tolist(), exact, answers, strict=True):
                    found = self.ranked(query, places[(places >= 0) & (places != own)])[0][:k]
                    hits += int((found >= scores[k - 1]).sum())
                share = hits / (k * len(sample))
                if share > best[1]:
                    best = effort, share
                if share >= (1 + recall) / 2:
                    break
            reached.append(best[0])
            recalls.append(best[1])
        if stopped():
            return None
        stretch = max(1.0, reached[1] / _breadth(_MEASURED[1] + 1))
        return replace(self, effort=reached[0], stretch=stretch, recall=min(recalls), measured=len(self))

    def _truth(self, queries: Vectors, k: int, stopped: Callable[[], bool]) -> Keys | None:
        """Return the positions of the `k` nearest vectors to each query."""
        metrics, places = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        size = max(k, BLOCK // (4 * self.file.dim))
        for start in range(0, len(self), size):
            positions = np.arange(start, min(start + size, len(self)))
            metric, place = knn(self.similarity.metric, queries, self.file.rows(positions), min(k, len(positions)))
            metrics, places = np.concatenate([metrics, metric], 1), np.concatenate([places, place + start], 1)
            order = np.argsort(-metrics if self.similarity.metric == "inner product" else metrics, 1)[:, :k]
            metrics, places = np.take_along_axis(metrics, order, 1), np.take_along_axis(places, order, 1)
            if stopped():
                return None
        return places

    def _visited(self, queries: Vectors, breadth: int, effort: int) -> Keys:
        """Return the positions, (q, breadth), that the graph finds for each query, best code first; -1 for none."""
        with one_thread():
            parameters = faiss.SearchParametersHNSW(efSearch=max(effort, breadth))
            places: Keys = self.hnsw.search(queries, breadth, params=parameters)[1]
        return places

    def _scanned(self, queries: Vectors, depth: int, chosen: NDArray[np.bool_] | None) -> Keys:
        """Return the positions, (q, depth), of those vectors whose codes come nearest to each query."""
        parameters = None
        if chosen is not None:
            bits = np.packbits(chosen, bitorder="little")
            parameters = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bits))
        with one_thread():
            places: Keys = self._codes.search(queries, depth, params=parameters)[1]
        return places


def _breadth(wanted: int) -> int:
    """Return how many are ranked by their vectors, of which so many are wanted."""
    return 2 * wanted + 10


@dataclass(frozen=True, eq=False)
class LiveGraph:
    """A graph without those of its vectors that were removed since it was built."""

    graph: Graph
    live: NDArray[np.bool_] | None
    """Which vectors are there still (n,); None for all."""
    length: int
    """How many they are."""
    count: int
    """How many keys they have."""

    @classmethod
    def whole(cls, graph: Graph) -> LiveGraph:
        """Return a graph from which nothing was removed."""
        return cls(graph, None, len(graph), distinct(graph.keys))

    @property
    def deleted(self) -> int:
        """How many vectors were removed."""
        return len(self.graph) - self.length

    @property
    def memory_bytes(self) -> int:
        """Bytes of codes, links and keys."""
        return self.graph.memory_bytes + (0 if self.live is None else self.live.nbytes)

    @property
    def keys(self) -> Keys:
        """The keys, ascending, each once."""
        keys = self.graph.keys
        return once(keys if self.live is None else keys[self.live], self.count)

    def without(self, keys: Keys) -> LiveGraph:
        """Return the graph without the vectors of `keys`; absent keys are ignored."""
        positions = self.positions(keys)
        if not len(positions):
            return self
        live = np.ones(len(self.graph), bool) if self.live is None else self.live.copy()
        live[positions] = False
        count = self.count - distinct(self.graph.keys[positions])
        return replace(self, live=live, length=self.length - len(positions), count=count)

    def positions(self, keys: Keys | None) -> Keys:
        """Return the positions, ascending, of the vectors of `keys` that are there still, or of all for None."""
        if keys is None:
            return np.arange(len(self.graph)) if self.live is None else np.flatnonzero(self.live)
        keys = np.unique(keys)
        starts = np.searchsorted(self.graph.keys, keys)
        lengths = np.searchsorted(self.graph.keys, keys, "right") - starts
        ends = np.cumsum(lengths)
        positions: Keys = np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - lengths), lengths)
        return positions if self.live is None else positions[self.live[positions]]

    def _chosen(self, keys: Keys) -> NDArray[np.bool_]:
        """Return which vectors (n,) are of `keys` and there still."""
        if len(keys) < len(self.graph) // _SPARSE:
            chosen = np.zeros(len(self.graph), bool)
            chosen[self.positions(keys)] = True
            return chosen
        chosen = held(self.graph.keys, keys)
        return chosen if self.live is None else chosen & self.live

    def search(
        self, queries: Vectors, k: int, allowed: Keys | None, *, grouped: bool, exact: bool
    ) -> tuple[Vectors, Keys, Ordinals]:
        """Search with prepared queries (q, dim), as `IndexView` describes."""
        chosen, total, count = self.live, self.length, self.count
        if allowed is not None:
            chosen = self._chosen(allowed)
            total = int(np.count_nonzero(chosen))
            count = distinct(self.graph.keys[chosen]) if grouped else 0
        wanted = min(k, count if grouped else total) if len(queries) else 0
        if exact or not wanted or total <= _FEW:
            positions = None if chosen is None else np.flatnonzero(chosen)
            return self.graph.search_exactly(queries, wanted, positions, grouped=grouped)
        return self.graph.search(queries, wanted, chosen, total, grouped=grouped)
