"""Exact search: every query is compared with every vector."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from service.arrays import Keys, Ordinals, Vectors
from service.index.base import IndexState, VectorIndex
from service.index.rows import Rows, distinct, held, once
from service.similarity import Similarity

_CELLS: Final = 1 << 22
"""Scores that are sorted at once."""
_MOST_QUERIES: Final = {"inner product": _CELLS, "squared distance": 16}
"""Queries that FAISS is asked at once. From 20 on it takes squared distances from inner products, which loses the
digits of small ones."""


class ExactIndex(VectorIndex):
    """The similarity to every vector, over prepared copies in memory."""

    kind: ClassVar[str] = "flat"
    summary: ClassVar[str] = "exact search"

    def __init__(self, dim: int, similarity: Similarity) -> None:
        self._view = ExactView(similarity, Rows(dim, similarity.metric))

    def add(self, keys: Keys, vectors: Vectors) -> None:
        """Add `vectors` (n, dim) under `keys` (n,), never descending and above every key added before."""
        similarity, rows = self._view.similarity, self._view.rows
        self._view = ExactView(similarity, rows.added(keys, similarity.prepared(vectors)))

    def remove(self, keys: Keys) -> None:
        """Remove all vectors of `keys`; absent keys are ignored."""
        self._view = ExactView(self._view.similarity, self._view.rows.without(keys))

    def view(self) -> ExactView:
        """Return what the index holds now."""
        return self._view


@dataclass(frozen=True, slots=True)
class ExactView:
    """Rows that are all compared with every query.

    Keys are kept beside the vectors, sorted, and not in an `IndexIDMap`: bisection then finds a key's position, a
    filter costs one bit a vector however large the keys are, and positions are in the order of keys. The vectors of
    one key are a run of equal keys.
    """

    similarity: Similarity
    rows: Rows

    def __len__(self) -> int:
        return self.rows.length

    @property
    def count(self) -> int:
        """The number of keys."""
        return self.rows.count

    @property
    def keys(self) -> Keys:
        """The keys, ascending, each once."""
        return once(self.rows.keys, self.count)

    @property
    def memory_bytes(self) -> int:
        """Bytes held by vectors and keys."""
        return self.rows.nbytes

    @property
    def state(self) -> IndexState:
        """How it searches."""
        return IndexState()

    def search(
        self,
        vectors: Vectors,
        k: int,
        allowed: Keys | None = None,
        *,
        distinct: bool = False,
        exact: bool = False,  # which it always is
    ) -> tuple[Vectors, Keys, Ordinals]:
        """Search as `IndexView` describes; `m` is less than `k` only where there are fewer vectors, or keys."""
        return self.search_prepared(self.similarity.prepared(vectors), k, allowed, grouped=distinct)

    def search_prepared(
        self, queries: Vectors, k: int, allowed: Keys | None = None, *, grouped: bool = False
    ) -> tuple[Vectors, Keys, Ordinals]:
        """Search with queries that are prepared; with `grouped`, only the best vector of each key counts."""
        rows, chosen, total, keys_total = self.rows, None, len(self), self.count
        if allowed is not None:
            chosen = held(rows.keys, allowed)
            total, keys_total = int(np.count_nonzero(chosen)), distinct(rows.keys[chosen])
        wanted = min(k, keys_total if grouped else total)
        found = np.empty((len(queries), wanted), np.float32), np.empty((len(queries), wanted), np.int64)
        left = np.arange(len(queries) if wanted else 0)
        # One more than wanted shows whether the last one wanted is tied with what follows.
        depth = min(wanted + 1, total)
        while len(left):
            step = min(max(1, _CELLS // depth), _MOST_QUERIES[rows.metric])
            unsettled = []
            for some in (left[start : start + step] for start in range(0, len(left), step)):
                metric, positions = rows.nearest(queries[some], depth, chosen)
                scores = self.similarity.scores(metric)
                settled = self._settle(found, some, scores, positions, grouped, everything=depth == total)
                unsettled.append(some[~settled])
            left = np.concatenate(unsettled)
            depth = min(depth * 8, total)
        keys = rows.keys[found[1]]
        return found[0], keys, found[1] - np.searchsorted(rows.keys, keys)

    def _settle(
        self,
        found: tuple[Vectors, Keys],
        rows: NDArray[np.int64],
        scores: Vectors,
        positions: Keys,
        grouped: bool,
        *,
        everything: bool,
    ) -> NDArray[np.bool_]:
        """Store the best results of each row that the answer (rows, depth) settles; return which rows those are.

        An answer is cut off anywhere in a run of equal scores. So a result that scores as the last one of the answer
        is sure only if the answer holds every vector; otherwise the row must be searched deeper, so that ties are
        broken by key and not by the state of a heap.
        """
        wanted = found[0].shape[1]
        order = np.lexsort((positions, -scores))
        scores, positions = np.take_along_axis(scores, order, 1), np.take_along_axis(positions, order, 1)
        counts = firsts(self.rows.keys[positions]) if grouped else np.ones(positions.shape, bool)
        chosen = counts & (counts.cumsum(1) <= wanted)
        sure = chosen.sum(1) == wanted
        if not everything:
            sure &= np.where(chosen, scores, np.inf).min(1) > scores[:, -1]
        found[0][rows[sure]] = scores[sure][chosen[sure]].reshape(-1, wanted)
        found[1][rows[sure]] = positions[sure][chosen[sure]].reshape(-1, wanted)
        settled: NDArray[np.bool_] = sure
        return settled


def compared(
    similarity: Similarity, queries: Vectors, k: int, blocks: Iterable[tuple[Keys, Vectors]], *, grouped: bool = False
) -> tuple[Vectors, Keys, Ordinals]:
    """Return what an exact search with prepared queries (q, dim) finds among prepared vectors and their keys.

    They come in blocks, by ascending key, that divide no key's run.
    """
    nothing = np.empty((len(queries), 0))
    best: tuple[Vectors, Keys, Ordinals] = (
        nothing.astype(np.float32),
        nothing.astype(np.int64),
        nothing.astype(np.int64),
    )
    for keys, vectors in blocks:
        rows = Rows.of(similarity.metric, keys, vectors)
        best = merged(k, [best, ExactView(similarity, rows).search_prepared(queries, k, grouped=grouped)])
    return best


def merged(k: int, parts: Sequence[tuple[Vectors, Keys, Ordinals]]) -> tuple[Vectors, Keys, Ordinals]:
    """Return the `k` best of several answers to the same queries, in the order that each of them has.

    No key is in two of them.
    """
    scores, keys, ordinals = (np.concatenate(each, 1) for each in zip(*parts, strict=True))
    order = np.lexsort((ordinals, keys, -scores))[:, :k]
    return tuple(np.take_along_axis(each, order, 1) for each in (scores, keys, ordinals))  # type: ignore[return-value]


def firsts(keys: Keys) -> NDArray[np.bool_]:
    """Return where each of `keys` (rows, n) occurs for the first time in its row."""
    order = np.argsort(keys, axis=1, kind="stable")
    grouped = np.take_along_axis(keys, order, 1)
    first = np.ones(keys.shape, bool)
    first[:, 1:] = grouped[:, 1:] != grouped[:, :-1]
    found = np.empty(keys.shape, bool)
    np.put_along_axis(found, order, first, 1)
    return found
