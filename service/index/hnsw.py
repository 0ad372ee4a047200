"""Approximate search: a graph, made aside from time to time, and beside it the vectors that came since."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final

import faiss as _typed_faiss
import numpy as np

from service.arrays import Keys, Ordinals, Vectors
from service.cores import available_cores
from service.errors import InvalidIndex, Place
from service.index.base import BuiltIndex, DamagedSnapshot, IndexState
from service.index.flat import ExactView, merged
from service.index.graph import EFFORT, LINKS, Graph, LiveGraph
from service.index.rows import Rows
from service.index.snapshot import Draft, load
from service.similarity import Similarity

faiss: Any = _typed_faiss

LEAST_RECALL: Final = 0.5
MOST_RECALL: Final = 0.999
_STEP: Final = 512
"""Vectors that are inserted at once, after each of which a build can stop: a tenth of a second or two."""
_WIDER: Final = 0.1
"""Part of the range of each dimension that is added on both sides, for vectors to come."""
_MOST_BEYOND: Final = 1e-3
"""Share of numbers beyond the range of the codes from which on the codes are made anew."""
_GROWTH: Final = 1.5
"""Growth of a graph after which its recall is measured anew."""
_TUNED: Final = ("effort", "stretch", "recall", "measured")


class HnswIndex(BuiltIndex[LiveGraph]):
    """A graph over most vectors, and a tail of the rest that is compared one by one.

    FAISS's graphs neither lose vectors nor take new ones while they are searched. So what is removed is left out of
    the answers, and what is added goes to the tail, until either is so much that another graph is built and takes the
    place of both. As long as there are few vectors, all of them are the tail and the search is exact.
    """

    kind: ClassVar[str] = "hnsw"
    summary: ClassVar[str] = "approximate search by a graph (HNSW over 8-bit codes, ranked by the vectors themselves)"
    default_recall: ClassVar[float] = 0.98

    exact_below: ClassVar[int] = 1_000
    """Vectors from which on there is a graph."""
    most_tail: ClassVar[int] = 8_192
    """Vectors of the tail, a millisecond's worth, beyond which they are put into a graph; more beside a large one."""
    most_of_graph: ClassVar[float] = 0.02
    """The same as a share of the graph."""
    most_deleted: ClassVar[float] = 0.25
    """Share of the graph's vectors whose removal makes another graph due."""

    def __init__(
        self, dim: int, similarity: Similarity, recall: float | None = None, folder: Path | None = None
    ) -> None:
        recall = self.default_recall if recall is None else recall
        if not LEAST_RECALL <= recall <= MOST_RECALL:
            raise InvalidIndex(
                f"recall {recall:g} is not from {LEAST_RECALL} to {MOST_RECALL}; to find all of the nearest, choose "
                "the index 'flat'.",
                where=Place("recall"),
            )
        self._similarity = similarity
        self._recall = recall
        self._folder = folder
        self._view = HnswView(ExactView(similarity, Rows(dim, similarity.metric)), None, recall)
        self._removed: list[Keys] | None = None  # since the build began

    def add(self, keys: Keys, vectors: Vectors) -> None:
        """Add `vectors` (n, dim) under `keys` (n,), never descending and above every key added before."""
        tail = self._view.tail
        self._view = self._view.with_tail(tail.rows.added(keys, self._similarity.prepared(vectors)))

    def remove(self, keys: Keys) -> None:
        """Remove all vectors of `keys`; absent keys are ignored."""
        self._view = self._view.without(keys)
        last = self._view.tail.rows.last
        if self._removed is not None and last is not None:
            self._removed.append(keys[keys <= last])  # others may be added yet

    def view(self) -> HnswView:
        """Return what the index holds now."""
        return self._view

    @property
    def due(self) -> bool:
        """Whether a build is due."""
        view, tail = self._view, len(self._view.tail)
        if self._removed is not None:
            return False
        postponed = view.failed_at > 0 and tail < 1.5 * view.failed_at  # another build would fail as well
        if view.graph is None:
            return tail >= self.exact_below and not postponed
        graph = len(view.graph.graph)
        many = tail > max(self.most_tail, self.most_of_graph * graph)
        return (many or view.graph.deleted > self.most_deleted * graph) and not postponed

    def begin(self) -> GraphBuild:
        """Begin to build a graph of what the index holds now."""
        self._removed = []
        graph = self._view.graph
        anew = graph is None or graph.deleted > self.most_deleted / 2 * len(graph.graph)
        return GraphBuild(self._view, self._recall, self._folder, anew)

    def adopt(self, part: LiveGraph) -> str | None:
        """Search with the graph that was built last, without what was removed since; return its snapshot's name."""
        removed, self._removed = self._removed or [], None
        self._view = self._view.with_graph(part)
        if removed:
            self._view = self._view.without(np.concatenate(removed))
        return part.graph.name

    def abandon(self, problem: str | None = None) -> None:
        """Give up the build that was begun."""
        self._removed = None
        self._view = replace(self._view, problem=problem, failed_at=max(1, len(self._view.tail)) if problem else 0)

    def restore(self, snapshot: str, keys: Keys) -> int:
        """Fill an empty index from a snapshot with the vectors of those of `keys`, ascending, that it covers."""
        assert self._folder is not None
        rows = self._view.tail.rows
        graph = load(self._folder, snapshot, rows.dim, self._similarity)
        if not len(graph):
            raise DamagedSnapshot("it is empty")
        last = int(graph.keys[-1])
        kept = np.unique(graph.keys)
        gone = np.setdiff1d(kept, keys, assume_unique=True)
        covered = int(np.searchsorted(keys, last, "right"))
        if len(kept) - len(gone) != covered:
            raise DamagedSnapshot(f"it lacks {covered - len(kept) + len(gone)} documents")
        self._view = self._view.with_graph(LiveGraph.whole(graph)).without(gone).with_tail(replace(rows, last=last))
        return last


class AutoIndex(HnswIndex):
    """Exact as long as that is fast, then a graph."""

    kind: ClassVar[str] = "auto"
    summary: ClassVar[str] = "exact search of up to 20,000 vectors, and `hnsw` of more"
    exact_below: ClassVar[int] = 20_000


@dataclass(frozen=True, eq=False)
class HnswView:
    """The vectors of a graph, if there is one, and those of the tail, whose keys are all above the graph's."""

    tail: ExactView
    graph: LiveGraph | None
    target: float
    problem: str | None = None
    failed_at: int = 0
    """How long the tail was when a build failed; 0 where none did."""

    def __len__(self) -> int:
        return len(self.tail) + (self.graph.length if self.graph else 0)

    @property
    def count(self) -> int:
        """The number of keys."""
        return self.tail.count + (self.graph.count if self.graph else 0)

    @property
    def keys(self) -> Keys:
        """The keys, ascending, each once."""
        return np.concatenate([self.graph.keys, self.tail.keys]) if self.graph else self.tail.keys

    @property
    def memory_bytes(self) -> int:
        """Bytes held by codes, links, vectors of the tail and keys."""
        return self.tail.memory_bytes + (self.graph.memory_bytes if self.graph else 0)

    @property
    def state(self) -> IndexState:
        """How it searches."""
        if self.graph is None:
            return IndexState(problem=self.problem)
        recall, problem = self.graph.graph.recall, self.problem
        if problem is None and recall < self.target:
            problem = f"a recall of {self.target:g} is not met; {recall:.3f} is what the index reaches at most"
        return IndexState("hnsw", len(self.tail), self.graph.deleted, self.target, round(recall, 4), problem)

    def with_tail(self, rows: Rows) -> HnswView:
        """Return the view with another tail."""
        return replace(self, tail=replace(self.tail, rows=rows))

    def with_graph(self, graph: LiveGraph) -> HnswView:
        """Return the view with another graph, and without what that covers in the tail."""
        keys, rows = graph.graph.keys, self.tail.rows
        if not len(keys):
            return replace(self, graph=None, problem=None, failed_at=0)
        return replace(self, graph=graph, problem=None, failed_at=0).with_tail(rows.after(int(keys[-1])))

    def without(self, keys: Keys) -> HnswView:
        """Return the view without the vectors of `keys`; absent keys are ignored."""
        view = self.with_tail(self.tail.rows.without(keys))
        return view if view.graph is None else replace(view, graph=view.graph.without(keys))

    def search(
        self,
        vectors: Vectors,
        k: int,
        allowed: Keys | None = None,
        *,
        distinct: bool = False,
        exact: bool = False,
    ) -> tuple[Vectors, Keys, Ordinals]:
        """Search as `IndexView` describes."""
        queries = self.tail.similarity.prepared(vectors)
        found = self.tail.search_prepared(queries, k, allowed, grouped=distinct)
        if self.graph is None:
            return found
        return merged(k, [self.graph.search(queries, k, allowed, grouped=distinct, exact=exact), found])


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

    view: HnswView
    recall: float
    folder: Path | None
    anew: bool
    inserted: int = 0

    @property
    def done(self) -> float:
        """How much of the work is done, from 0 to 1, by the vectors that are to be inserted."""
        copied = self.view.graph.length if self.view.graph and not self.anew else 0
        return self.inserted / max(1, len(self.view) - copied)

    def run(self, stopped: Callable[[], bool]) -> LiveGraph | None:
        """Build, tune and write the graph; None where `stopped` became true. Raises `OSError`."""
        draft = Draft(self.folder, self.view.tail.rows.dim)
        finished = False
        try:
            built = self._built(draft, stopped)
            if built is not None and len(built.graph):
                built = replace(built, graph=replace(built.graph, name=draft.finish(built.graph)))
                finished = True
            return built
        finally:
            if not finished:
                draft.discard()

    def _built(self, draft: Draft, stopped: Callable[[], bool]) -> LiveGraph | None:
        similarity, old, rows = self.view.tail.similarity, self.view.graph, self.view.tail.rows
        self.anew = anew = self.anew or old is None or self._beyond(old.graph.hnsw)
        hnsw = self._empty() if anew or old is None else faiss.clone_index(old.graph.hnsw)
        if old is not None:
            for keys, vectors in old.graph.blocks(old.positions(None) if anew else None):
                draft.append(keys, vectors)
                if stopped() or (anew and not self._insert(hnsw, vectors, stopped)):
                    return None
        for chunk in rows.chunks:
            draft.append(chunk.keys, chunk.vectors)
            if not self._insert(hnsw, chunk.vectors, stopped):
                return None
        graph = Graph(similarity, draft.keys, draft.file, hnsw)
        if anew or old is None or len(graph) >= _GROWTH * old.graph.measured:
            tuned = graph.tuned(self.recall, stopped)
            if tuned is None:
                return None
            graph = tuned
        else:
            graph = replace(graph, **{name: getattr(old.graph, name) for name in _TUNED})
        if anew or old is None or old.live is None:
            return LiveGraph.whole(graph)
        live = np.append(old.live, np.ones(rows.length, bool))
        return LiveGraph(graph, live, old.length + rows.length, old.count + rows.count)

    def _insert(self, hnsw: Any, vectors: Vectors, stopped: Callable[[], bool]) -> bool:
        """Insert prepared vectors (n, dim) into a graph; return whether it came to the end before it was stopped."""
        before = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(max(1, available_cores() // 2))
        try:
            for start in range(0, len(vectors), _STEP):
                if stopped():
                    return False
                hnsw.add(vectors[start : start + _STEP])
                self.inserted += len(vectors[start : start + _STEP])
        finally:
            faiss.omp_set_num_threads(before)
        return True

    def _empty(self) -> Any:
        """Return a graph without vectors whose codes span the numbers of all those that it is to have."""
        rows, least, most = self.view.tail.rows, None, None
        for vectors in self._all():
            low, high = vectors.min(0), vectors.max(0)
            least = low if least is None else np.minimum(least, low)
            most = high if most is None else np.maximum(most, high)
        metric = faiss.METRIC_INNER_PRODUCT if rows.metric == "inner product" else faiss.METRIC_L2
        hnsw = faiss.IndexHNSWSQ(rows.dim, faiss.ScalarQuantizer.QT_8bit, LINKS, metric)
        hnsw.hnsw.efConstruction = EFFORT
        if least is None or most is None:
            least = most = np.zeros(rows.dim, np.float32)
        wider = _WIDER * (most - least) + np.float32(1e-30)
        hnsw.train(np.stack([least - wider, most + wider]))
        return hnsw

    def _all(self) -> Iterator[Vectors]:
        """Yield all vectors that there are still."""
        if self.view.graph is not None:
            for _, vectors in self.view.graph.graph.blocks(self.view.graph.positions(None)):
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
