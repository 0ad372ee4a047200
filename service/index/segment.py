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
from service.index.clustering import centres, flat
from service.index.live import Live
from service.index.rows import half_the_cores, nearest_in, one_thread
from service.index.snapshot import Draft, Snapshot
from service.similarity import Similarity

faiss: Any = _typed_faiss

KIND: Final = "ivf"
_RANGE: Final = 2.5
"""Standard deviations on both sides of the mean that 4 bits divide; what is beyond has the nearest code."""
_LISTS: Final = 2
"""Lists of a segment for the root of the number of its vectors."""
SAMPLE: Final = 50
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

_ROUNDING: Final = 1e-6
"""Part of metrics that is rounding."""

# The costs of a search in microseconds, on one core, between which its effort is divided.
_COST_OF_CODE: Final = 0.05
_COST_OF_CANDIDATE: Final = 20.0

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
        lists, candidates = (round(few + share * (many - few)) for few, many in (self.lists, self.candidates))
        return lists, max(candidates, wanted)


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
        return int(faiss.extract_index_ivf(self.index).nlist)

    @cached_property
    def memory_bytes(self) -> int:
        """Bytes of codes, centres and keys."""
        if self.index is None:
            return int(self.keys.nbytes)
        ivf = faiss.extract_index_ivf(self.index)
        each = int(ivf.code_size) + 8  # with its position
        return len(self.keys) * each + 4 * int(ivf.d) * (int(ivf.nlist) + int(ivf.d)) + int(self.keys.nbytes)

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
        options = {} if bits is None else {"sel": faiss.IDSelectorBitmap(bits)}
        parameters = faiss.SearchParametersIVF(nprobe=lists, **options)
        with one_thread():
            found: tuple[Floats, Keys] = self.index.search(
                queries, count, params=faiss.SearchParametersPreTransform(index_params=parameters)
            )
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
            cost = _COST_OF_CODE * count / self.lists * lists
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
    return max(1, int(_LISTS * count**0.5))


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
    found = centres(similarity.metric, sample, min(lists_of(count), len(sample)), go_on)
    return extended(Segment(np.empty(0, np.int64), _empty(similarity, found, sample), count), blocks, go_on)


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


def _empty(similarity: Similarity, found: Vectors, sample: Vectors) -> Any:
    """Return FAISS's index without vectors around centres (n, dim), for vectors as those of a sample (m, dim).

    Vectors are turned at random, so that their numbers are alike in size, and have one range.
    """
    dim = found.shape[1]
    turn = faiss.RandomRotationMatrix(dim, dim)
    turn.init(dim)
    quantizer = flat(similarity.metric, turn.apply(found))
    codes = faiss.ScalarQuantizer.QT_4bit_uniform
    ivf = faiss.IndexIVFScalarQuantizer(quantizer, dim, len(found), codes, quantizer.metric_type, True)
    ivf.sq.rangestat, ivf.sq.rangestat_arg = faiss.ScalarQuantizer.RS_meanstd, _RANGE
    ivf.own_fields = True
    quantizer.this.disown()
    ivf.train(turn.apply(sample[-_TRAINING:]))
    index = faiss.IndexPreTransform(turn, ivf)
    index.own_fields = True
    turn.this.disown()
    ivf.this.disown()
    return index


def _steps(most: int) -> Iterator[int]:
    """Yield 1, 2, 3, 4, 6, 8, 12 and so on, up to `most` and with it."""
    step = 1
    while step < most:
        yield step
        if step >= 2 and step * 3 // 2 < most:
            yield step * 3 // 2
        step *= 2
    yield most
