"""A graph (HNSW) over codes of vectors, whose answers are ranked again by the vectors themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Final

import faiss as _typed_faiss
import numpy as np
from numpy.typing import NDArray

from service.arrays import Keys, Ordinals, Vectors
from service.index.flat import compared, firsts
from service.index.linking import Linking, linking_of
from service.index.live import Live, packed
from service.index.rows import distinct, knn, nearest_in, one_thread
from service.index.snapshot import Snapshot
from service.index.vectorfile import BLOCK, VectorFile
from service.similarity import SIMILARITIES, Similarity

faiss: Any = _typed_faiss

TUNED: Final = ("effort", "stretch", "recall", "measured")
_EFFORTS: Final = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
"""Candidates that are kept in a search (efSearch), of which the least is chosen that reaches the recall."""
_SAMPLE: Final = 200
"""Vectors that are searched for to measure the recall."""
_MEASURED: Final = (10, 100)
"""How many neighbours of each are looked for, for the effort of small and of large answers."""
_MOST_BREADTH: Final = 500
"""Vectors that a graph is asked for at most. What was measured says nothing about far more than 100 neighbours, for
which a search must leave the cluster that it is in. No more than were measured are asked for where all that match a
filter may lie in other clusters."""

# The costs of a search in microseconds, from 200,000 x 384 on one core; they choose between two ways to one result.
_COST_OF_EFFORT: Final = 2.4
_COST_OF_CODE: Final = 0.064
_COST_OF_SKIPPING: Final = 0.004
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
        scale: what vectors are multiplied by in codes.
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
    scale: float = 1.0
    effort: int = 0
    stretch: float = 1.0
    recall: float = 0.0
    measured: int = 0
    name: str | None = None

    @classmethod
    def of(cls, snapshot: Snapshot) -> Graph:
        """Return the graph of a snapshot."""
        tuned = {name: snapshot.about[name] for name in TUNED}
        similarity = SIMILARITIES[snapshot.about["similarity"]]
        scale = snapshot.about.get("scale", 1.0)  # earlier ones were never scaled
        return cls(similarity, snapshot.keys, snapshot.file, snapshot.index, scale, **tuned, name=snapshot.name)

    @property
    def linking(self) -> Linking:
        """The kind of graph that is built now, which one from an earlier version may not be of."""
        return linking_of(self.similarity)

    @property
    def tuning(self) -> dict[str, Any]:
        """What it was tuned to."""
        return {name: getattr(self, name) for name in TUNED}

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
        filtered: bool = False,
        grouped: bool = False,
    ) -> tuple[Vectors, Keys, Ordinals]:
        """Return scores, keys and ordinals, (q, wanted) each, of the best vectors to prepared queries (q, dim).

        `chosen` (n,) are the vectors that count, None for all; there are `total` of them, and `wanted` of them or of
        their keys at least. Where they were `filtered`, the nearest of them may lie in other clusters than a query.
        They are searched by the graph, or their codes one by one where that is quicker. A query to which the graph
        finds few of them, since they lie elsewhere, is compared with their codes too.
        """
        found = np.empty((len(queries), wanted), np.float32), np.empty((len(queries), wanted), np.int64)
        left = np.arange(len(queries))
        depth = min(_breadth(wanted), total)
        by_graph = True
        most = _breadth(max(_MEASURED)) if filtered else _MOST_BREADTH
        while len(left):
            breadth = depth if chosen is None else int(1.5 * depth * len(self) / total) + 1
            effort = max(self.effort, int(self.stretch * breadth))
            scanning = _COST_OF_CODE * total + _COST_OF_SKIPPING * len(self)
            by_graph = by_graph and depth < total and breadth <= most and _COST_OF_EFFORT * effort < scanning
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
        blocks = self.blocks(positions if k else np.empty(0, np.int64))
        return compared(self.similarity, queries, k, blocks, grouped=grouped)

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

    def _placed(self, stopped: Callable[[], bool]) -> Iterator[tuple[Keys, Vectors]]:
        """Yield positions and vectors, in blocks, until `stopped` becomes true."""
        size = max(1, BLOCK // (4 * self.file.dim))
        for start in range(0, len(self), size):
            if stopped():
                return
            positions = np.arange(start, min(start + size, len(self)))
            yield positions, self.file.rows(positions)

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
        truth = nearest_in(self.similarity.metric, queries, self._placed(stopped), most + 1)[1]
        if stopped():
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
            parameters = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(packed(chosen)))
        with one_thread():
            places: Keys = self._codes.search(queries, depth, params=parameters)[1]
        return places


def _breadth(wanted: int) -> int:
    """Return how many are ranked by their vectors, of which so many are wanted."""
    return 2 * wanted + 10


class LiveGraph(Live[Graph]):
    """A graph without those of its vectors that were removed since it was built."""

    uses: ClassVar[str] = "hnsw"
    pending: ClassVar[int] = 0

    def worn(self, share: float) -> bool:
        """Whether more than a share of the vectors was removed, or graphs are built in another way now."""
        return super().worn(share) or not self.part.linking.made(self.part.hnsw)

    @property
    def recall(self) -> float:
        """As it was measured."""
        return self.part.recall

    @property
    def memory_bytes(self) -> int:
        """Bytes of codes, links and keys."""
        return self.part.memory_bytes + (0 if self.live is None else self.live.nbytes)

    def search(
        self, queries: Vectors, k: int, allowed: Keys | None, *, grouped: bool, exact: bool
    ) -> tuple[Vectors, Keys, Ordinals]:
        """Search with prepared queries (q, dim), as `IndexView` describes."""
        chosen, total, count = self.chosen(allowed), self.length, self.count
        if allowed is not None and chosen is not None:
            total = int(np.count_nonzero(chosen))
            count = distinct(self.part.keys[chosen]) if grouped else 0
        wanted = min(k, count if grouped else total) if len(queries) else 0
        if exact or not wanted or total <= _FEW:
            positions = None if chosen is None else np.flatnonzero(chosen)
            return self.part.search_exactly(queries, wanted, positions, grouped=grouped)
        return self.part.search(queries, wanted, chosen, total, filtered=allowed is not None, grouped=grouped)
