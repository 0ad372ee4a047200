"""Approximate search: a graph, made aside from time to time, and beside it the vectors that came since."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final

import faiss as _typed_faiss
import numpy as np

from service.arrays import Keys, Vectors
from service.index.graph import Graph, LiveGraph
from service.index.linking import linking_of
from service.index.live import restored
from service.index.rows import half_the_cores
from service.index.snapshot import Draft, load
from service.index.tail import TailedIndex, TailedView

faiss: Any = _typed_faiss

_STEP: Final = 512
"""Vectors that are inserted at once, after each of which a build can stop: a tenth of a second or two."""
_GROWTH: Final = 1.5
"""Growth of a graph after which its recall is measured anew."""


class HnswIndex(TailedIndex[LiveGraph, LiveGraph]):
    """A graph over most vectors, and a tail of the rest.

    FAISS's graphs neither lose vectors nor take new ones while they are searched, so that another graph is built and
    takes the place of both.
    """

    kind: ClassVar[str] = "hnsw"
    summary: ClassVar[str] = (
        "approximate search by a graph (HNSW over 8-bit codes, 16-bit for `dot`, ranked by the vectors themselves)"
    )
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
                about = {**graph.tuning, "scale": graph.scale}
                name = draft.finish(HnswIndex.kind, graph.similarity, graph.keys, graph.hnsw, about)
                built = LiveGraph(replace(graph, name=name), built.live, built.length, built.count)
                finished = True
            return built
        finally:
            if not finished:
                draft.discard()

    def _built(self, draft: Draft, stopped: Callable[[], bool]) -> LiveGraph | None:
        similarity, old, rows = self.view.tail.similarity, self.view.body, self.view.tail.rows
        linking = linking_of(similarity)
        self.anew = anew = (
            self.anew
            or old is None
            or not linking.covers(old.part.hnsw, old.part.scale, (chunk.vectors for chunk in rows.chunks))
        )
        if anew or old is None:
            hnsw, scale = linking.empty(rows.dim, self._all())
        else:
            hnsw, scale = faiss.clone_index(old.part.hnsw), old.part.scale
        graph = Graph(similarity, np.empty(0, np.int64), draft.file, hnsw, scale)
        of_keys = [np.empty(0, np.int64)]
        if old is not None:
            for keys, vectors in old.part.blocks(old.positions(None) if anew else None):
                of_keys.append(keys)
                draft.append(vectors)
                if stopped() or (anew and not self._insert(graph, vectors, stopped)):
                    return None
        for chunk in rows.chunks:
            of_keys.append(chunk.keys)
            draft.append(chunk.vectors)
            if not self._insert(graph, chunk.vectors, stopped):
                return None
        graph = replace(graph, keys=np.concatenate(of_keys))
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

    def _insert(self, graph: Graph, vectors: Vectors, stopped: Callable[[], bool]) -> bool:
        """Insert prepared vectors (n, dim) into a graph; return whether it came to the end before it was stopped."""
        with half_the_cores():
            for start in range(0, len(vectors), _STEP):
                if stopped():
                    return False
                some = vectors[start : start + _STEP]
                graph.linking.insert(graph.hnsw, some, graph.scale)
                self.inserted += len(some)
        return True

    def _all(self) -> Iterator[Vectors]:
        """Yield all vectors that there are still."""
        if (graph := self.view.body) is not None:
            for _, vectors in graph.part.blocks(graph.positions(None)):
                yield vectors
        for chunk in self.view.tail.rows.chunks:
            yield chunk.vectors
