"""A segment: vectors of consecutive keys as 4-bit codes in lists, each around a centre (IVF)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import faiss as _typed_faiss
import numpy as np
from numpy.typing import NDArray

from service.arrays import Floats, Keys, Ordinals, Vectors
from service.index.clustering import centres
from service.index.live import Live
from service.index.rows import half_the_cores, nearest_in, one_thread
from service.index.snapshot import Draft, Snapshot
from service.similarity import Similarity

faiss: Any = _typed_faiss

KIND: Final = "ivf"
_RANGE: Final = 2.5
"""Standard deviations on both sides of the mean that 4 bits divide; what is beyond has the nearest code."""
_LIST: Final = 32
"""Vectors of a list. Long ones have parts of several clusters, each of which lies in several lists: with lists of
500, a search of a million vectors compares thirty times as many codes for the same recall."""
SAMPLE: Final = 4
"""Vectors for each list that its centre is found by."""
_TRAINING: Final = 20_000
"""Vectors that the range of codes is found by."""
_STEP: Final = 4_096
"""Vectors that are coded at once, after each of which a build can stop."""
QUERIES: Final = 200
"""Vectors that are searched for to measure the recall."""
_SMALL, _LARGE = 10, 100
"""How many neighbours of each are looked for, for the effort of small and of large answers."""
_MOST_CANDIDATES: Final = 1_000
"""Candidates of a query that are tried at most."""

_LEAST_LISTS: Final = 16
"""Lists that are tried at least; fewer cost no less."""
_BEYOND: Final = 64
"""Centres that the graph over them looks at beyond twice those that are wanted."""
_MOST_BY_GRAPH: Final = 256
"""Centres beyond which comparing all of them is quicker, and misses none."""
_ROUNDING: Final = 1e-6
"""Part of metrics that is rounding."""

# The costs of a search in microseconds, on one core, between which its effort is divided.
_COST_OF_LIST: Final = 2.0
_COST_OF_CODE: Final = 0.1
_COST_OF_CANDIDATE: Final = 8.0

Blocks = Iterable[tuple[Keys, Vectors]]
"""Keys and prepared vectors, ascending, in blocks that divide no key's run."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How thorough a search is: the lists that it looks into, and the candidates that it ranks by their vectors.

    Both are for 10 neighbours and for 100. `recall` is as measured with them, when there were `measured` vectors.
    """

    lists: tuple[int, int]
    candidates: tuple[int, int]
    recall: float
    measured: int

    def of(self, wanted: int) -> tuple[int, int]:
        """Return the number of lists, and of candidates, for so many neighbours."""
        share = max(0.0, (wanted - _SMALL) / (_LARGE - _SMALL))
        lists = round(self.lists[0] * (self.lists[1] / self.lists[0]) ** min(share, 1.0))
        few, many = self.candidates
        return lists, max(round(few + share * (many - few)), wanted)


@dataclass(frozen=True, eq=False)
class Segment:
    """Vectors at positions in the order of their keys. All vectors of a key are in one segment.

    Args:
        keys: the key of each (n,), ascending.
        index: FAISS's index of their codes under their positions; never changed. None where they have none yet.
        trained: how many vectors there were when the centres were found.
        effort: of a search.
        name: of the file that it is kept in; None for none.
    """

    keys: Keys
    index: Any = None
    trained: int = 0
    effort: Effort = Effort((1, 1), (_SMALL, _LARGE), 1.0, 0)
    name: str | None = None

    @classmethod
    def of(cls, snapshot: Snapshot) -> Segment:
        """Return the segment that a file holds."""
        about = snapshot.about
        (few, many), (fewer, more) = about["lists"], about["candidates"]
        effort = Effort((few, many), (fewer, more), about["recall"], about["measured"])
        return cls(snapshot.keys, snapshot.index, about["trained"], effort, snapshot.name)

    def written(self, draft: Draft, similarity: Similarity) -> Segment:
        """Return the segment with the name of the file that it is written to; raises `OSError`."""
        effort = self.effort
        about = {"trained": self.trained, "lists": effort.lists, "candidates": effort.candidates}
        about |= {"recall": effort.recall, "measured": effort.measured}
        return replace(self, name=draft.finish(KIND, similarity, self.keys, self.index, about))

    @cached_property
    def lists(self) -> int:
        """The number of lists."""
        return int(self._ivf.nlist)

    @property
    def outdated(self) -> bool:
        """Whether its lists are those of an earlier version: few and long, with centres that are in no graph."""
        return self.index is not None and not isinstance(self._centres, faiss.IndexHNSW)

    @cached_property
    def memory_bytes(self) -> int:
        """Bytes of codes, centres and keys."""
        if self.index is None:
            return int(self.keys.nbytes)
        each, dim = int(self._ivf.code_size) + 8, int(self._ivf.d)  # a code, and its position
        of_centres = 4 * dim * self.lists
        if not self.outdated:
            of_centres = dim * self.lists + 4 * int(self._centres.hnsw.neighbors.size())
        return len(self.keys) * each + of_centres + 4 * dim * dim + int(self.keys.nbytes)

    @cached_property
    def _ivf(self) -> Any:
        return faiss.extract_index_ivf(self.index)

    @cached_property
    def _centres(self) -> Any:
        return faiss.downcast_index(self._ivf.quantizer)

    @cached_property
    def _turn(self) -> Any:
        return faiss.downcast_VectorTransform(self.index.chain.at(0))

    def ordinals(self, positions: Keys) -> Ordinals:
        """Return the place of each vector among those of its key."""
        found: Ordinals = positions - np.searchsorted(self.keys, self.keys[positions])
        return found

    def nearest(
        self, queries: Vectors, count: int, lists: int, bits: NDArray[np.uint8] | None = None
    ) -> tuple[Floats, Keys]:
        """Return metrics by codes and positions, (q, count), of the best in the nearest lists; -1 for none.

        `bits` has one for each vector, whether it counts; None for all.
        """
        count, lists = min(count, len(self.keys)), min(lists, self.lists)
        options = {} if bits is None else {"sel": faiss.IDSelectorBitmap(bits)}
        parameters = faiss.SearchParametersIVF(nprobe=lists, **options)
        found = np.empty((len(queries), count), np.float32), np.empty((len(queries), count), np.int64)
        with one_thread():
            turned = self._turn.apply(queries)
            of_centres, near = self._nearest_lists(turned, lists)
            x, near_, of_centres_, metrics, positions = map(faiss.swig_ptr, (turned, near, of_centres, *found))
            self._ivf.search_preassigned_c(
                *(len(queries), x, count, near_, of_centres_, metrics, positions, False, parameters)
            )
        return found

    def _nearest_lists(self, turned: Vectors, count: int) -> tuple[Floats, Keys]:
        """Return the metrics and numbers, (q, count), of the lists whose centres are nearest; -1 for none."""
        if self.outdated or count > _MOST_BY_GRAPH:
            every = self._centres if self.outdated else faiss.downcast_index(self._centres.storage)
            found: tuple[Floats, Keys] = every.search(turned, count)
        else:
            parameters = faiss.SearchParametersHNSW(efSearch=2 * count + _BEYOND)
            found = self._centres.search(turned, count, params=parameters)
        return found

    def tuned(
        self,
        similarity: Similarity,
        asked: tuple[Keys, Vectors],
        blocks: Blocks,
        recall: float,
        bits: NDArray[np.uint8] | None,
        go_on: Callable[[], None],
    ) -> Segment:
        """Return the segment with the least effort that reaches a recall, or with what comes nearest.

        `asked` are positions and prepared vectors that are searched for, and `blocks` yields the vectors of all keys
        that are there still, as `bits` has it. It aims at half of the misses, since queries are not as these vectors.
        `go_on` is called between the steps, and may raise.
        """
        (own, queries), count, goal = asked, len(self.keys), (1 + recall) / 2
        metrics, places = nearest_in(similarity.metric, queries, self._placed(blocks), 2 * _LARGE + 1)
        most = places.shape[1] - 1
        if not len(own) or most < 1:
            return replace(self, effort=Effort((1, 1), (_SMALL, _LARGE), 1.0, count))
        equal = _ROUNDING * ((queries**2).sum(1) + np.abs(metrics).max(1))
        neighbours = _Neighbours(own, metrics, places, equal, complete=most == count - 1)
        small, large = (_Choice(neighbours.of(min(k, most)), min(k, most), goal) for k in (_SMALL, _LARGE))
        for lists in _steps(self.lists):
            cost = (_COST_OF_LIST + _COST_OF_CODE * count / self.lists) * lists
            if small.settled(cost) and large.settled(cost):
                break
            go_on()
            found = self.nearest(queries, min(_MOST_CANDIDATES, count), lists, bits)[1]
            small.consider(lists, cost, found)
            large.consider(lists, cost, found)
        effort = Effort(
            (small.lists, max(small.lists, large.lists)),
            (small.candidates, max(small.candidates, large.candidates)),
            min(small.recall, large.recall),
            count,
        )
        return replace(self, effort=effort)

    def _placed(self, blocks: Blocks) -> Iterator[tuple[Keys, Vectors]]:
        """Yield positions and vectors of some of the keys."""
        for keys, vectors in blocks:
            ordinals = np.arange(len(keys)) - np.searchsorted(keys, keys)
            yield np.searchsorted(self.keys, keys) + ordinals, vectors


LiveSegment = Live[Segment]


@dataclass(frozen=True, slots=True)
class _Neighbours:
    """The nearest vectors to queries that are vectors themselves.

    Args:
        own: the position of each query (q,), which is no neighbour of itself.
        metrics: of the nearest (q, m), best first.
        places: their positions.
        equal: by how much metrics to each query differ by rounding.
        complete: whether these are all vectors.
    """

    own: Keys
    metrics: Floats
    places: Keys
    equal: Floats
    complete: bool

    def of(self, wanted: int) -> dict[int, Keys]:
        """Return by query the positions of those that are as good as the last one wanted, or better.

        A query says nothing, and is left out, whose neighbours cannot be told from more equal ones than are known.
        """
        found = {}
        for row, itself in enumerate(self.own.tolist()):
            others = np.flatnonzero(self.places[row] != itself)
            metrics = self.metrics[row, others]
            last = int(np.flatnonzero(np.abs(metrics - metrics[wanted - 1]) <= self.equal[row])[-1])
            if self.complete or last < len(others) - 1:
                found[row] = self.places[row, others[: last + 1]]
        return found


class _Choice:
    """The cheapest effort so far that finds `wanted` neighbours of each query with a recall of `goal`."""

    def __init__(self, neighbours: dict[int, Keys], wanted: int, goal: float) -> None:
        self.lists = self.candidates = 1
        self.recall = -1.0
        self._cost = float("inf")
        self._neighbours, self._wanted, self._goal = neighbours, wanted, goal

    def settled(self, cost: float) -> bool:
        """Whether the goal is reached, by something cheaper than this cost."""
        return self.recall >= self._goal and cost >= self._cost

    def consider(self, lists: int, cost: float, places: Keys) -> None:
        """Consider a search of so many lists at a cost, which found the vectors at `places` (q, n), best first."""
        hits = np.zeros(places.shape[1])
        for row, right in self._neighbours.items():
            hits += np.minimum(np.isin(places[row], right).cumsum(), self._wanted)
        recalls = hits / (self._wanted * len(self._neighbours)) if self._neighbours else np.ones(len(hits))
        enough = int(np.searchsorted(recalls, min(self._goal, recalls[-1])))
        recall, cost = float(recalls[enough]), cost + _COST_OF_CANDIDATE * (enough + 1)
        reached = recall >= self._goal and self.recall >= self._goal
        if cost < self._cost if reached else recall > self.recall:
            self.lists, self.candidates, self.recall, self._cost = lists, enough + 1, recall, cost


def lists_of(count: int) -> int:
    """Return how many lists a segment of so many vectors has."""
    return max(1, count // _LIST)


def coded(
    similarity: Similarity,
    count: int,
    sample: Vectors,
    blocks: Blocks,
    go_on: Callable[[], None],
) -> Segment:
    """Return a segment of what is in blocks, about `count` vectors, around centres of a sample (m, dim) of them.

    `go_on` is called between the steps, and may raise.
    """
    return extended(Segment(np.empty(0, np.int64), _empty(similarity, count, sample, go_on), count), blocks, go_on)


def extended(segment: Segment, blocks: Blocks, go_on: Callable[[], None]) -> Segment:
    """Return a segment with what is in blocks behind its own; the index of the one that is given is changed."""
    found, end = [segment.keys], len(segment.keys)
    for keys, vectors in blocks:
        found.append(keys)
        with half_the_cores():
            for start in range(0, len(vectors), _STEP):
                go_on()
                some = vectors[start : start + _STEP]
                segment.index.add_with_ids(some, np.arange(end, end + len(some)))
                end += len(some)
    # A copy has no room to grow, which would be as large again.
    return replace(segment, keys=np.concatenate(found), index=faiss.clone_index(segment.index))


def _empty(similarity: Similarity, count: int, sample: Vectors, go_on: Callable[[], None]) -> Any:
    """Return FAISS's index without vectors for about `count` of them, which are as those of a sample (m, dim).

    Vectors are turned at random, so that their numbers are alike in size, and have one range; the sample is turned in
    its place, since it takes much memory.
    """
    dim = sample.shape[1]
    turn = faiss.RandomRotationMatrix(dim, dim)
    turn.init(dim)
    for start in range(0, len(sample), _STEP):
        sample[start : start + _STEP] = turn.apply(sample[start : start + _STEP])
    quantizer = centres(similarity.metric, sample, min(lists_of(count), len(sample)), go_on)
    codes = faiss.ScalarQuantizer.QT_4bit_uniform
    ivf = faiss.IndexIVFScalarQuantizer(quantizer, dim, quantizer.ntotal, codes, quantizer.metric_type, True)
    ivf.sq.rangestat, ivf.sq.rangestat_arg = faiss.ScalarQuantizer.RS_meanstd, _RANGE
    ivf.own_fields = True
    quantizer.this.disown()
    ivf.train(sample[-_TRAINING:])
    index = faiss.IndexPreTransform(turn, ivf)
    index.own_fields = True
    turn.this.disown()
    ivf.this.disown()
    return index


def _steps(most: int) -> Iterator[int]:
    """Yield 16, 24, 32, 48, 64 and so on, up to `most` and with it."""
    step = _LEAST_LISTS
    while step < most:
        yield step
        if step * 3 // 2 < most:
            yield step * 3 // 2
        step *= 2
    yield most
