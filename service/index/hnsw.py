"""Approximate search: a graph, made aside from time to time, and beside it the vectors that came since."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final

import faiss as _typed_faiss
import numpy as np

from service.arrays import Keys, Vectors
from service.index.graph import EFFORT, LINKS, Graph, LiveGraph
from service.index.live import restored
from service.index.rows import half_the_cores
from service.index.snapshot import Draft, load
from service.index.tail import TailedIndex, TailedView
from service.similarity import SIMILARITIES

faiss: Any = _typed_faiss

_STEP: Final = 512
"""Vectors that are inserted at once, after each of which a build can stop: a tenth of a second or two."""
_WIDER: Final = 0.1
"""Part of the range of each dimension that is added on both sides, for vectors to come."""
_MOST_BEYOND: Final = 1e-3
"""Share of numbers beyond the range of the codes from which on the codes are made anew."""
_GROWTH: Final = 1.5
"""Growth of a graph after which its recall is measured anew."""


class HnswIndex(TailedIndex[LiveGraph, LiveGraph]):
    """A graph over most vectors, and a tail of the rest.

    FAISS's graphs neither lose vectors nor take new ones while they are searched, so that another graph is built and
    takes the place of both.
    """

    kind: ClassVar[str] = "hnsw"
    summary: ClassVar[str] = "approximate search by a graph (HNSW over 8-bit codes, ranked by the vectors themselves)"
    default_recall: ClassVar[float] = 0.98

    exact_below: ClassVar[int] = 1_000
    most_tail: ClassVar[int] = 8_192
    most_of_body: ClassVar[float] = 0.02

    def _build(self) -> GraphBuild:
        graph = self._view.body
        return GraphBuild(self._view, self._recall, self._folder, graph is None or graph.worn(self.most_deleted / 2))

    def adopt(self, part: LiveGraph) -> str | None:
        """Search with the graph that was built last, without what was removed since; return its snapshot's name."""
        self._replace_body(part if len(part) else None)
        return part.part.name

    def restore(self, snapshot: str, keys: Keys) -> int:
        """Fill an empty index from a snapshot with the vectors of those of `keys`, ascending, that it covers."""
        assert self._folder is not None
        graph = Graph.of(load(self._folder, snapshot, self._view.tail.rows.dim, self._similarity, HnswIndex.kind))
        return self._restore(restored([LiveGraph.whole(graph)], keys)[0])


class AutoIndex(HnswIndex):
    """Exact as long as that is fast, then a graph."""

    kind: ClassVar[str] = "auto"
    summary: ClassVar[str] = "exact search of up to 20,000 vectors, and `hnsw` of more"
    exact_below: ClassVar[int] = 20_000


@dataclass(eq=False)
class GraphBuild:
    """A graph that is to be built of what an index held at one moment.

    Args:
        view: that.
        recall: the recall that it is tuned for.
        folder: where its snapshot is kept; None for nowhere.
        anew: whether it is built from nothing, or else from a copy of the graph that there is.
        inserted: vectors that are in it so far, beside those of the copy.
    """

    view: TailedView[LiveGraph]
    recall: float
    folder: Path | None
    anew: bool
    inserted: int = 0

    @property
    def done(self) -> float:
        """How much of the work is done, from 0 to 1, by the vectors that are to be inserted."""
        copied = self.view.body.length if self.view.body and not self.anew else 0
        return self.inserted / max(1, len(self.view) - copied)

    def run(self, stopped: Callable[[], bool]) -> LiveGraph | None:
        """Build, tune and write the graph; None where `stopped` became true. Raises `OSError`."""
        draft = Draft(self.folder, self.view.tail.rows.dim)
        finished = False
        try:
            built = self._built(draft, stopped)
            if built is not None and len(built):
                graph = built.part
                name = draft.finish(HnswIndex.kind, graph.similarity, graph.keys, graph.hnsw, graph.tuning)
                built = LiveGraph(replace(graph, name=name), built.live, built.length, built.count)
                finished = True
            return built
        finally:
            if not finished:
                draft.discard()

    def _built(self, draft: Draft, stopped: Callable[[], bool]) -> LiveGraph | None:
        similarity, old, rows = self.view.tail.similarity, self.view.body, self.view.tail.rows
        self.anew = anew = (
            self.anew or old is None or old.part.hnsw.metric_type != self._metric or self._beyond(old.part.hnsw)
        )
        hnsw = self._empty() if anew or old is None else faiss.clone_index(old.part.hnsw)
        of_keys = [np.empty(0, np.int64)]
        if old is not None:
            for keys, vectors in old.part.blocks(old.positions(None) if anew else None):
                of_keys.append(keys)
                draft.append(vectors)
                if stopped() or (anew and not self._insert(hnsw, vectors, stopped)):
                    return None
        for chunk in rows.chunks:
            of_keys.append(chunk.keys)
            draft.append(chunk.vectors)
            if not self._insert(hnsw, chunk.vectors, stopped):
                return None
        graph = Graph(similarity, np.concatenate(of_keys), draft.file, hnsw)
        if anew or old is None or len(graph) >= _GROWTH * old.part.measured:
            tuned = graph.tuned(self.recall, stopped)
            if tuned is None:
                return None
            graph = tuned
        else:
            graph = replace(graph, **old.part.tuning)
        if anew or old is None or old.live is None:
            return LiveGraph.whole(graph)
        live = np.append(old.live, np.ones(rows.length, bool))
        return LiveGraph(graph, live, old.length + rows.length, old.count + rows.count)

    def _insert(self, hnsw: Any, vectors: Vectors, stopped: Callable[[], bool]) -> bool:
        """Insert prepared vectors (n, dim) into a graph; return whether it came to the end before it was stopped."""
        with half_the_cores():
            for start in range(0, len(vectors), _STEP):
                if stopped():
                    return False
                hnsw.add(vectors[start : start + _STEP])
                self.inserted += len(vectors[start : start + _STEP])
        return True

    def _empty(self) -> Any:
        """Return a graph without vectors whose codes span the numbers of all those that it is to have."""
        rows, least, most = self.view.tail.rows, None, None
        for vectors in self._all():
            low, high = vectors.min(0), vectors.max(0)
            least = low if least is None else np.minimum(least, low)
            most = high if most is None else np.maximum(most, high)
        hnsw = faiss.IndexHNSWSQ(rows.dim, faiss.ScalarQuantizer.QT_8bit, LINKS, self._metric)
        hnsw.hnsw.efConstruction = EFFORT
        if least is None or most is None:
            least = most = np.zeros(rows.dim, np.float32)
        wider = _WIDER * (most - least) + np.float32(1e-30)
        hnsw.train(np.stack([least - wider, most + wider]))
        return hnsw

    @property
    def _metric(self) -> int:
        """What codes are compared by, in FAISS's numbers.

        Vectors of length one have the same order by distance as by product. But the error of a product of codes is as
        large as that of the vectors, of a distance only as large as the distance: in a cluster of near ones, products
        are all alike.
        """
        by_product = self.view.tail.similarity is SIMILARITIES["dot"]
        metric: int = faiss.METRIC_INNER_PRODUCT if by_product else faiss.METRIC_L2
        return metric

    def _all(self) -> Iterator[Vectors]:
        """Yield all vectors that there are still."""
        if (graph := self.view.body) is not None:
            for _, vectors in graph.part.blocks(graph.positions(None)):
                yield vectors
        for chunk in self.view.tail.rows.chunks:
            yield chunk.vectors

    def _beyond(self, hnsw: Any) -> bool:
        """Whether the codes of a graph are too narrow for the tail."""
        rows = self.view.tail.rows
        ranges = faiss.vector_to_array(faiss.downcast_index(hnsw.storage).sq.trained)
        least, most = ranges[: rows.dim], ranges[: rows.dim] + ranges[rows.dim :]
        beyond = sum(int(np.count_nonzero((chunk.vectors < least) | (chunk.vectors > most))) for chunk in rows.chunks)
        return beyond > _MOST_BEYOND * rows.length * rows.dim
