"""Exact search: every query is compared with every vector."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Final

import faiss as _typed_faiss
import numpy as np
from numpy.typing import NDArray

from service.arrays import Keys, Ordinals, Vectors
from service.similarity import Similarity

# FAISS's type information describes the C++ signatures under it, not those that Python sees.
faiss: Any = _typed_faiss

_CELLS: Final = 1 << 22
"""Scores that are sorted at once."""
_FLAT: Final = {"inner product": faiss.IndexFlatIP, "squared distance": faiss.IndexFlatL2}
_MOST_QUERIES: Final = {"inner product": _CELLS, "squared distance": 16}
"""Queries that FAISS is asked at once. From 20 on it takes squared distances from inner products, which loses the
digits of small ones."""


class ExactIndex:
    """The similarity to every vector, by FAISS's flat index over prepared copies.

    Keys are kept here, sorted, and not in an `IndexIDMap`: bisection then finds a key's position, a filter costs one
    bit a vector however large the keys are, and positions are in the order of keys. The vectors of one key are a run
    of equal keys.
    """

    kind: ClassVar[str] = "flat"
    summary: ClassVar[str] = "exact search"

    def __init__(self, dim: int, similarity: Similarity) -> None:
        self._similarity = similarity
        self._flat = _FLAT[similarity.metric](dim)
        self._keys: Keys = np.empty(0, np.int64)

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def count(self) -> int:
        """The number of keys."""
        return _distinct(self._keys)

    @property
    def memory_bytes(self) -> int:
        """Bytes held by vectors and keys."""
        return int(self._flat.ntotal * self._flat.code_size + self._keys.nbytes)

    def add(self, keys: Keys, vectors: Vectors) -> None:
        """Add `vectors` (n, dim) under `keys` (n,), never descending and above every key added before."""
        if np.any(np.diff(keys) < 0) or (len(self) and len(keys) and keys[0] <= self._keys[-1]):
            raise ValueError("keys must ascend and lie above every key added before")
        self._flat.add(self._similarity.prepared(vectors))
        self._keys = np.concatenate([self._keys, keys])

    def remove(self, keys: Keys) -> None:
        """Remove all vectors of `keys`; absent keys are ignored."""
        positions = np.flatnonzero(self._held(keys))
        if len(positions):
            self._flat.remove_ids(positions)  # shifts the rest down, in order, as np.delete does
            self._keys = np.delete(self._keys, positions)

    def search(
        self, vectors: Vectors, k: int, allowed: Keys | None = None, *, distinct: bool = False
    ) -> tuple[Vectors, Keys, Ordinals]:
        """Search as `VectorIndex` describes; `m` is less than `k` only where there are fewer vectors, or keys."""
        parameters, eligible = None, self._keys
        if allowed is not None:
            bits = self._held(allowed)
            parameters = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(np.packbits(bits, bitorder="little")))
            eligible = self._keys[bits]
        wanted = min(k, _distinct(eligible) if distinct else len(eligible))
        found = np.empty((len(vectors), wanted), np.float32), np.empty((len(vectors), wanted), np.int64)
        queries, left = self._similarity.prepared(vectors), np.arange(len(vectors) if wanted else 0)
        # One more than wanted shows whether the last one wanted is tied with what follows.
        depth = min(wanted + 1, len(eligible))
        while len(left):
            step = min(max(1, _CELLS // depth), _MOST_QUERIES[self._similarity.metric])
            unsettled = []
            for rows in (left[start : start + step] for start in range(0, len(left), step)):
                with _one_thread():
                    metric, positions = self._flat.search(queries[rows], depth, params=parameters)
                scores = self._similarity.scores(metric)
                settled = self._settle(found, rows, scores, positions, distinct, everything=depth == len(eligible))
                unsettled.append(rows[~settled])
            left = np.concatenate(unsettled)
            depth = min(depth * 8, len(eligible))
        keys = self._keys[found[1]]
        return found[0], keys, found[1] - np.searchsorted(self._keys, keys)

    def _settle(
        self,
        found: tuple[Vectors, Keys],
        rows: NDArray[np.int64],
        scores: Vectors,
        positions: Keys,
        distinct: bool,
        *,
        everything: bool,
    ) -> NDArray[np.bool_]:
        """Store the best results of each row that FAISS's answer (rows, depth) settles; return which rows those are.

        FAISS cuts off a run of equal scores anywhere. So a result that scores as the last one of the answer is sure
        only if the answer holds every vector; otherwise the row must be searched deeper, so that ties are broken by
        key and not by the state of a heap.
        """
        wanted = found[0].shape[1]
        order = np.lexsort((positions, -scores))
        scores, positions = np.take_along_axis(scores, order, 1), np.take_along_axis(positions, order, 1)
        counts = _firsts(self._keys[positions]) if distinct else np.ones(positions.shape, bool)
        chosen = counts & (counts.cumsum(1) <= wanted)
        sure = chosen.sum(1) == wanted
        if not everything:
            sure &= np.where(chosen, scores, np.inf).min(1) > scores[:, -1]
        found[0][rows[sure]] = scores[sure][chosen[sure]].reshape(-1, wanted)
        found[1][rows[sure]] = positions[sure][chosen[sure]].reshape(-1, wanted)
        settled: NDArray[np.bool_] = sure
        return settled

    def _held(self, keys: Keys) -> NDArray[np.bool_]:
        """Return which vectors, (n,), are stored under any of `keys`."""
        firsts, ends = np.searchsorted(self._keys, keys), np.searchsorted(self._keys, keys, "right")
        steps = np.bincount(firsts, minlength=len(self) + 1) - np.bincount(ends, minlength=len(self) + 1)
        held: NDArray[np.bool_] = steps[:-1].cumsum() > 0
        return held


def _distinct(keys: Keys) -> int:
    """Return the number of different keys among sorted ones."""
    return int(np.count_nonzero(np.diff(keys))) + 1 if len(keys) else 0


def _firsts(keys: Keys) -> NDArray[np.bool_]:
    """Return where each of `keys` (rows, n) occurs for the first time in its row."""
    order = np.argsort(keys, axis=1, kind="stable")
    grouped = np.take_along_axis(keys, order, 1)
    first = np.ones(keys.shape, bool)
    first[:, 1:] = grouped[:, 1:] != grouped[:, :-1]
    firsts = np.empty(keys.shape, bool)
    np.put_along_axis(firsts, order, first, 1)
    return firsts


@contextmanager
def _one_thread() -> Iterator[None]:
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
