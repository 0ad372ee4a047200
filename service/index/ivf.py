"""Approximate search of many vectors with little memory: segments of codes, ranked by vectors read from the store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Final

import faiss as _typed_faiss
import numpy as np
from numpy.typing import NDArray

from service.arrays import Keys, Ordinals, Vectors
from service.index.base import DamagedSnapshot, Stopped, VectorSource
from service.index.flat import compared, firsts, merged
from service.index.live import packed, restored
from service.index.rows import Rows, distinct, held, knn
from service.index.segment import KIND, QUERIES, SAMPLE, LiveSegment, Segment, coded, extended, lists_of
from service.index.snapshot import Draft, load
from service.index.tail import TailedIndex
from service.similarity import Similarity

faiss: Any = _typed_faiss

_GROWTH: Final = 3
"""Growth of a segment after which its centres are found anew."""
_MEASURED_GROWTH: Final = 1.5
"""Growth of a segment after which its recall is measured anew."""
_FEW: Final = 500
"""Vectors that are read and compared themselves rather than their codes."""
_SPARSE: Final = 20
"""One of how many vectors is read at most, where they are read one by one."""
_AT_ONCE: Final = 1_000
"""Keys whose vectors are read at once."""

_MODEST: Final = 20_000
"""Vectors that a filter leaves up to which all their codes are compared, which takes less than a millisecond."""
_STRETCH: Final = 4
"""How many times as many candidates are ranked where the nearest lie far from a query, so that codes tell less."""
_POOLED: Final = 2
"""How many times as many candidates are ranked of several segments, whose nearest lie closer together."""
_MOST_COUNTED: Final = 1_000
"""Vectors that are looked for to see whether those that are allowed lie near a query."""

Found = tuple[Vectors, Keys, Ordinals]


@dataclass(frozen=True, eq=False)
class Segments:
    """Segments in the order of their keys: those with codes, then those that have none yet, which are read."""

    uses: ClassVar[str] = KIND

    similarity: Similarity
    source: VectorSource
    segments: tuple[LiveSegment, ...]

    def __len__(self) -> int:
        return sum(map(len, self.segments))

    @property
    def last(self) -> int:
        """The highest key."""
        return self.segments[-1].last

    @property
    def length(self) -> int:
        """How many vectors there are still."""
        return sum(each.length for each in self.segments)

    @property
    def count(self) -> int:
        """How many keys they have."""
        return sum(each.count for each in self.segments)

    @property
    def keys(self) -> Keys:
        """The keys that are there still, ascending, each once."""
        return np.concatenate([each.keys for each in self.segments])

    @property
    def deleted(self) -> int:
        """How many vectors were removed."""
        return sum(each.deleted for each in self.segments)

    @property
    def pending(self) -> int:
        """Vectors without codes."""
        return sum(each.length for each in self._uncoded)

    @property
    def recall(self) -> float | None:
        """As it was measured, in the segment where it is the least; None where no vector has a code."""
        return min((each.part.effort.recall for each in self._coded), default=None)

    @property
    def memory_bytes(self) -> int:
        """Bytes of codes, centres and keys."""
        return sum(each.part.memory_bytes + (0 if each.live is None else each.live.nbytes) for each in self.segments)

    @property
    def name(self) -> str | None:
        """The names of the files that have the segments; None where there is none."""
        return " ".join(each.part.name for each in self._coded if each.part.name is not None) or None

    def worn(self, share: float) -> bool:
        """Whether vectors have no codes, or more than a share of those of a segment was removed."""
        return any(unfit(each, share) for each in self.segments)

    def without(self, keys: Keys) -> Segments:
        """Return the segments without the vectors of `keys`; absent keys are ignored."""
        return replace(self, segments=tuple(each.without(keys) for each in self.segments))

    def search(self, queries: Vectors, k: int, allowed: Keys | None, *, grouped: bool, exact: bool) -> Found:
        """Search with prepared queries (q, dim), as `IndexView` describes."""
        keys = allowed
        if keys is not None and not np.all(keys[1:] > keys[:-1]):
            keys = np.unique(keys)
        if exact:
            return self._compared(self.segments, queries, k, keys, grouped)
        by_codes = self._by_codes(queries, k, keys, grouped)
        return merged(k, [by_codes, self._compared(self._uncoded, queries, k, keys, grouped)])

    @cached_property
    def _coded(self) -> tuple[LiveSegment, ...]:
        return tuple(each for each in self.segments if each.part.index is not None)

    @cached_property
    def _uncoded(self) -> tuple[LiveSegment, ...]:
        return self.segments[len(self._coded) :]

    def _compared(
        self, segments: Sequence[LiveSegment], queries: Vectors, k: int, keys: Keys | None, grouped: bool
    ) -> Found:
        """Return what is found by reading the vectors of segments, of `keys` or of all."""
        blocks = self._read(segments, keys) if k and len(queries) else ()
        return compared(self.similarity, queries, k, blocks, grouped=grouped)

    def _read(self, segments: Sequence[LiveSegment], keys: Keys | None) -> Iterator[tuple[Keys, Vectors]]:
        """Yield keys and prepared vectors of segments that follow one another, of `keys`, ascending, or of all."""
        if not segments:
            return
        after, last = int(segments[0].part.keys[0]) - 1, segments[-1].last
        if keys is not None:
            keys = _between(keys, *segments)
        if keys is not None and _SPARSE * len(keys) < sum(each.count for each in segments):
            for start in range(0, len(keys), _AT_ONCE):
                some = keys[start : start + _AT_ONCE]
                read = self.source.at([(key, None) for key in some.tolist()])
                own = [
                    (key, vectors) for key, vectors in zip(some.tolist(), read, strict=True) if vectors is not None
                ]
                if own:
                    counts = [len(vectors) for _, vectors in own]
                    stacked = np.concatenate([vectors for _, vectors in own])
                    yield np.repeat([key for key, _ in own], counts), self.similarity.prepared(stacked)
            return
        for block, vectors in self.source.blocks(after, last):
            if keys is not None:
                chosen = held(block, keys)
                block, vectors = block[chosen], vectors[chosen]
            if len(block):
                yield block, self.similarity.prepared(vectors)

    def _by_codes(self, queries: Vectors, k: int, keys: Keys | None, grouped: bool) -> Found:
        """Return what is found among the vectors that have codes, of `keys`, ascending, or of all."""
        if keys is None:
            searched = [_Chosen(each, each.length, each.bits) for each in self._coded if each.length]
            count = sum(each.count for each in self._coded)
        else:
            marks = [each.chosen(_between(keys, each)) for each in self._coded]
            of_each = [each.part.keys[some] for each, some in zip(self._coded, marks, strict=True)]
            searched = [
                _Chosen(each, len(own), packed(some))
                for each, own, some in zip(self._coded, of_each, marks, strict=True)
                if some is not None and len(own)
            ]
            count = sum(map(distinct, of_each))
        total = sum(each.length for each in searched)
        wanted = min(k, count if grouped else total) if len(queries) else 0
        if not wanted or total <= _FEW:
            return self._compared(self._coded, queries, wanted, keys, grouped)
        found: list[Found] = [_nothing()] * len(queries)
        left, depth = np.arange(len(queries)), wanted
        everywhere = keys is not None and total <= _MODEST
        stretch = _STRETCH if everywhere else 1  # few that are allowed may all lie far
        while len(left):
            again = []
            pooled = _POOLED if len(searched) > 1 else 1
            most = min(total, int(stretch * pooled * max(each.segment.part.effort.of(depth)[1] for each in searched)))
            candidates = _candidates(
                searched, queries[left], depth, most, everywhere=everywhere, filtered=keys is not None
            )
            for row, (of_keys, ordinals, enough) in zip(left.tolist(), candidates, strict=True):
                if not enough:
                    again.append(row)
                    continue
                best = self._ranked(queries[row], of_keys, ordinals)
                if grouped:
                    first = firsts(best[1][None])[0]
                    best = best[0][first], best[1][first], best[2][first]
                if len(best[0]) < wanted and not (everywhere and depth == total):
                    again.append(row)
                    continue
                found[row] = best[0][:wanted], best[1][:wanted], best[2][:wanted]
            left = np.array(again, np.int64)
            depth = min(depth * 4, total) if everywhere else depth
            everywhere, stretch = True, _STRETCH
        # As many for each: fewer are found only where the store has lost some.
        width = min(len(scores) for scores, _, _ in found)
        scores, of_keys, ordinals = (np.stack([part[:width] for part in each]) for each in zip(*found, strict=True))
        return scores, of_keys, ordinals

    def _ranked(self, query: Vectors, keys: Keys, ordinals: Ordinals) -> Found:
        """Return scores, keys and ordinals of vectors by the similarity to one query (dim,), best first.

        Those that are in the store no more are left out.
        """
        read = self.source.at([*zip(keys.tolist(), ordinals.tolist(), strict=True)])
        there = [own is not None and len(own) == 1 for own in read]
        if not any(there):
            return _nothing()
        own = np.concatenate([own for own in read if own is not None and len(own) == 1])
        vectors = self.similarity.prepared(own)
        metrics, places = knn(self.similarity.metric, query[None], vectors, len(vectors))
        scores, keys, ordinals = (
            self.similarity.scores(metrics[0]),
            keys[there][places[0]],
            ordinals[there][places[0]],
        )
        order = np.lexsort((ordinals, keys, -scores))
        return scores[order], keys[order], ordinals[order]


def _between(keys: Keys, *segments: LiveSegment) -> Keys:
    """Return those of ascending keys that are from the first of some segments to the last of them."""
    start = np.searchsorted(keys, segments[0].part.keys[0])
    return keys[start : np.searchsorted(keys, segments[-1].last, "right")]


def _nothing() -> Found:
    return np.empty(0, np.float32), np.empty(0, np.int64), np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class _Chosen:
    """A segment of which some vectors count: `length` of them, or all where there are no `bits`."""

    segment: LiveSegment
    length: int
    bits: NDArray[np.uint8] | None


def _candidates(
    searched: Sequence[_Chosen], queries: Vectors, wanted: int, most: int, *, everywhere: bool, filtered: bool
) -> Iterator[tuple[Keys, Ordinals, bool]]:
    """Yield for each query keys and ordinals of the best vectors by their codes, `most` at most.

    The fewer of a segment count, the more of its lists are looked into; with `everywhere`, all of them. The last of
    what is yielded is whether these will do. They do not where there are too few, nor where far fewer of the allowed
    vectors are near than of all others: then those that are allowed lie elsewhere.
    """
    metrics, keys, ordinals, needed = [], [], [], 0
    for each in searched:
        part = each.segment.part
        lists = part.lists
        if not everywhere:
            lists = min(lists, -(-part.effort.of(wanted)[0] * len(part.keys) // each.length))
        usual = part.effort.of(wanted)[0] * len(part.keys) // part.lists  # vectors in those lists, were all allowed
        depth = max(most, min(usual // 4, _MOST_COUNTED)) if filtered and not everywhere else most
        depth = min(depth, each.length)
        needed += depth
        found, positions = part.nearest(queries, depth, lists, each.bits)
        better = found if part.index.metric_type == faiss.METRIC_INNER_PRODUCT else -found
        metrics.append(np.where(positions < 0, -np.inf, better))
        keys.append(np.where(positions < 0, -1, part.keys[positions]))
        ordinals.append(part.ordinals(positions))
    all_metrics, all_keys, all_ordinals = (np.concatenate(each, 1) for each in (metrics, keys, ordinals))
    there = np.count_nonzero(all_keys >= 0, axis=1)
    enough = everywhere | (there >= (needed if filtered else most))
    for row, order in enumerate(np.argsort(-all_metrics, axis=1, kind="stable")[:, :most]):
        order = order[all_keys[row, order] >= 0]
        yield all_keys[row, order], all_ordinals[row, order], bool(enough[row])


@dataclass(frozen=True, slots=True)
class Built:
    """A segment that takes the place of all vectors whose keys are from `first` to `last`; None for none of them."""

    first: int
    last: int
    segment: LiveSegment | None


class IvfIndex(TailedIndex[Segments, Built]):
    """Segments of codes that are each built on its own, and a tail.

    Memory holds codes and keys. Vectors are read from the store, by a search to rank what it finds by codes, and by a
    build to make codes of them. A segment takes the tail in until it is large, with other centres each time it has
    grown several times; then the next one begins, so that no build has to do with more than the vectors of one.
    """

    kind: ClassVar[str] = KIND
    summary: ClassVar[str] = (
        "approximate search of many millions (IVF over 4-bit codes, ranked by the vectors themselves, which "
        "stay on the disk)"
    )
    default_recall: ClassVar[float] = 0.95

    exact_below: ClassVar[int] = 20_000
    most_tail: ClassVar[int] = 16_384
    most_of_segment: ClassVar[int] = 1 << 21
    """Vectors beyond which a segment takes no more in."""
    most_tail_bytes: ClassVar[int] = 1 << 29
    """Memory of the tail beyond which its vectors are read from the store until they have codes."""

    def add(self, keys: Keys, vectors: Vectors) -> None:
        """Add `vectors` (n, dim) under `keys` (n,), never descending and above every key added before."""
        super().add(keys, vectors)
        rows = self._view.tail.rows
        if rows.nbytes > self.most_tail_bytes or rows.length > self.most_of_segment:
            uncoded = LiveSegment.whole(Segment(rows.keys))
            body = Segments(self._similarity, self._source, (*self._segments, uncoded))
            self._view = replace(self._view.with_tail(rows.after(body.last)), body=body)

    @property
    def _segments(self) -> tuple[LiveSegment, ...]:
        return () if self._view.body is None else self._view.body.segments

    def _build(self) -> SegmentBuild:
        """Build what is unfit, or else the tail, with what is beside it as long as all fits into one segment."""
        segments, tail, most = self._segments, self._view.tail.rows, self.most_of_segment
        start = next((at for at, each in enumerate(segments) if unfit(each, self.most_deleted)), len(segments))
        stop, size = start, 0
        while stop < len(segments) and (stop == start or size + segments[stop].length <= most):
            size += segments[stop].length
            stop += 1
        if stop == len(segments) and (stop == start or size + tail.length <= most):
            size += tail.length
        else:
            tail = Rows(tail.dim, tail.metric)
        while start and size + segments[start - 1].length <= most:
            start -= 1
            size += segments[start].length
        return SegmentBuild(
            *(self._similarity, self._source, segments[start:stop], tail, self._recall, self._folder),
            most_deleted=self.most_deleted,
        )

    def adopt(self, part: Built) -> str | None:
        """Search with the segment that was built last, without what was removed since; return the snapshot's name."""
        before = [each for each in self._segments if each.last < part.first]
        behind = [rest for each in self._segments if len(rest := after(each, part.last))]
        segments = (*before, *([] if part.segment is None else [part.segment]), *behind)
        body = Segments(self._similarity, self._source, segments) if segments else None
        self._replace_body(body)
        return None if body is None else body.name

    def restore(self, snapshot: str, keys: Keys) -> int:
        """Fill an empty index from a snapshot with the vectors of those of `keys`, ascending, that it covers."""
        assert self._folder is not None
        dim = self._view.tail.rows.dim
        parts = [
            LiveSegment.whole(Segment.of(load(self._folder, name, dim, self._similarity, KIND)))
            for name in snapshot.split()
        ]
        if any(one.last >= other.part.keys[0] for one, other in pairwise(parts)):
            raise DamagedSnapshot("its files do not follow one another")
        return self._restore(Segments(self._similarity, self._source, tuple(restored(parts, keys))))


def unfit(segment: LiveSegment, share: float) -> bool:
    """Whether a segment has no codes or those of an earlier version, or more than a share of it was removed."""
    return segment.part.index is None or segment.part.outdated or segment.worn(share)


def after(segment: LiveSegment, key: int) -> LiveSegment:
    """Return the vectors of keys above `key` of a segment; one with codes has no others."""
    start = int(np.searchsorted(segment.part.keys, key, "right"))
    if not start:
        return segment
    kept = segment.positions(None)
    return LiveSegment.whole(Segment(segment.part.keys[kept[kept >= start]]))


@dataclass(eq=False)
class SegmentBuild:
    """A segment that is to be built in the place of others, and of the tail.

    Args:
        similarity: what vectors are compared by.
        source: where those of segments are read.
        replaced: the segments, which follow one another.
        tail: the rows of the tail; none where it stays.
        recall: the recall that it is tuned for.
        folder: where its file is kept; None for nowhere.
        most_deleted: share of removed vectors beyond which codes are made anew.
        seen: vectors that were coded or compared so far.
    """

    similarity: Similarity
    source: VectorSource
    replaced: tuple[LiveSegment, ...]
    tail: Rows
    recall: float
    folder: Path | None
    most_deleted: float
    seen: int = 0

    @property
    def done(self) -> float:
        """How much of the work is done, from 0 to 1: each vector is coded, and compared to measure the recall."""
        return min(1.0, self.seen / max(1, 2 * (sum(map(len, self.replaced)) + self.tail.length)))

    def run(self, stopped: Callable[[], bool]) -> Built | None:
        """Build, tune and write the segment; None where `stopped` became true. Raises `OSError`."""

        def go_on() -> None:
            if stopped():
                raise Stopped

        try:
            segment = self._segment(go_on)
        except Stopped:
            return None
        first = int(self.replaced[0].part.keys[0] if self.replaced else self.tail.chunks[0].keys[0])
        last = int(self.tail.chunks[-1].keys[-1]) if self.tail.length else self.replaced[-1].last
        return Built(first, last, segment)

    def _segment(self, go_on: Callable[[], None]) -> LiveSegment | None:
        """Return the segment; None where there are no vectors any more."""
        segment = self._extended(go_on) if self._extends else self._coded(go_on)
        if segment is None:
            return None
        measured = segment.part.effort.measured
        if not measured or len(segment) >= _MEASURED_GROWTH * measured:
            asked = self._picked(segment.part.keys, QUERIES)
            tuned = segment.part.tuned(self.similarity, asked, self._blocks(go_on), self.recall, segment.bits, go_on)
            segment = replace(segment, part=tuned)
        go_on()
        draft = Draft(self.folder, self.tail.dim)
        try:
            return replace(segment, part=segment.part.written(draft, self.similarity))
        except BaseException:
            draft.discard()
            raise

    @property
    def _extends(self) -> bool:
        """Whether the codes of the segment that is replaced stay."""
        if len(self.replaced) != 1 or not self.tail.length or unfit(self.replaced[0], self.most_deleted):
            return False
        return len(self.replaced[0]) + self.tail.length <= _GROWTH * self.replaced[0].part.trained

    def _extended(self, go_on: Callable[[], None]) -> LiveSegment:
        (old,) = self.replaced
        copy = replace(old.part, index=faiss.clone_index(old.part.index), name=None)
        segment = extended(copy, self._of_tail(), go_on)
        live = None if old.live is None else np.append(old.live, np.ones(self.tail.length, bool))
        return LiveSegment(segment, live, old.length + self.tail.length, old.count + self.tail.count)

    def _coded(self, go_on: Callable[[], None]) -> LiveSegment | None:
        keys = np.concatenate([*(each.part.keys[each.positions(None)] for each in self.replaced), self.tail.keys])
        most = SAMPLE * lists_of(len(keys))
        sample = self._picked(keys, most)[1]
        go_on()
        if not len(sample):  # all of it was removed meanwhile, and others may not have been
            sample = next((vectors[:most].copy() for _, vectors in self._blocks(go_on) if len(vectors)), sample)
        if not len(sample):
            return None
        segment = coded(self.similarity, len(keys), sample, self._blocks(go_on), go_on)
        return LiveSegment.whole(segment) if len(segment.keys) else None

    def _picked(self, keys: Keys, count: int) -> tuple[Keys, Vectors]:
        """Return the positions, ascending, of `count` vectors by chance of `keys` (n,), or less, and the vectors."""
        positions = np.sort(np.random.default_rng(len(keys)).permutation(len(keys))[:count])
        vectors, end = np.empty((len(positions), self.tail.dim), np.float32), 0
        there = np.zeros(len(positions), bool)
        for start in range(0, len(positions), _AT_ONCE):
            some = positions[start : start + _AT_ONCE]
            places = zip(keys[some].tolist(), (some - np.searchsorted(keys, keys[some])).tolist(), strict=True)
            for place, own in enumerate(self.source.at([*places]), start):
                if own is not None and len(own) == 1:
                    there[place] = True
                    vectors[end] = self.similarity.prepared(own)[0]
                    end += 1
        return positions[there], vectors[:end]

    def _blocks(self, go_on: Callable[[], None]) -> Iterator[tuple[Keys, Vectors]]:
        """Yield the keys and prepared vectors that there are still of what the segment is built of."""
        if self.replaced:
            first, last = int(self.replaced[0].part.keys[0]), self.replaced[-1].last
            for keys, vectors in self.source.blocks(first - 1, last):
                go_on()
                yield keys, self.similarity.prepared(vectors)
                self.seen += len(keys)
        for keys, vectors in self._of_tail():
            go_on()
            yield keys, vectors

    def _of_tail(self) -> Iterator[tuple[Keys, Vectors]]:
        for chunk in self.tail.chunks:
            yield chunk.keys, chunk.vectors
            self.seen += chunk.length
