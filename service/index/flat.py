"""Vector indexes: which keys lie nearest to a query."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import faiss as _typed_faiss
import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidIndex, InvalidVector

# FAISS's type information describes the C++ signatures under it, not those that Python sees.
faiss: Any = _typed_faiss

Keys = NDArray[np.int64]
Vectors = NDArray[np.float32]
Ordinals = NDArray[np.int64]

_CELLS = 1 << 22
"""Scores that are looked through at once."""


class VectorIndex(Protocol):
    """What a collection asks of an index. A key may have several vectors.

    Calls that change it never overlap any other call.
    """

    def __len__(self) -> int:
        """Vectors."""

    @property
    def count(self) -> int:
        """Keys."""

    @property
    def memory_bytes(self) -> int:
        """Bytes held by vectors and keys."""

    def add(self, keys: Keys, vectors: Vectors) -> None:
        """Add `vectors` (n, dim) under `keys` (n,), never descending and above every key added before."""

    def remove(self, keys: Keys) -> None:
        """Forget all vectors of `keys`; absent ones are passed over."""

    def search(
        self, vectors: Vectors, k: int, allowed: Keys | None = None, *, distinct: bool = False
    ) -> tuple[Vectors, Keys, Ordinals]:
        """Return for each of `vectors` (q, dim) scores, keys and ordinals, all (q, m) with m <= k, best first.

        An ordinal is a vector's place among those of its key. Only `allowed` keys, if given, can be found. With
        `distinct` the best vector of each key alone counts.
        """


class ExactIndex:
    """Cosine similarity against every vector: FAISS's flat inner product over normalised copies.

    Keys are kept here, sorted, and not in an `IndexIDMap`: a position is then found by bisection, so that a
    filter costs one bit a vector whatever the keys have grown to, and positions are in the order of keys. The
    vectors of one key are a run of equal keys.
    """

    def __init__(self, dim: int) -> None:
        self._flat = faiss.IndexFlatIP(dim)
        self._keys: Keys = np.empty(0, np.int64)

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def count(self) -> int:
        """Keys."""
        return _distinct(self._keys)

    @property
    def memory_bytes(self) -> int:
        """Bytes held by vectors and keys."""
        return int(self._flat.ntotal * self._flat.code_size + self._keys.nbytes)

    def add(self, keys: Keys, vectors: Vectors) -> None:
        """Add `vectors` (n, dim) under `keys` (n,), never descending and above every key added before."""
        if np.any(np.diff(keys) < 0) or (len(self) and len(keys) and keys[0] <= self._keys[-1]):
            raise ValueError("keys must ascend and lie above every key added before")
        self._flat.add(normalized(vectors))
        self._keys = np.concatenate([self._keys, keys])

    def remove(self, keys: Keys) -> None:
        """Forget all vectors of `keys`; absent ones are passed over."""
        positions = np.flatnonzero(self._held(keys))
        if len(positions):
            self._flat.remove_ids(positions)  # shifts the rest down, in order, as np.delete does
            self._keys = np.delete(self._keys, positions)

    def search(
        self, vectors: Vectors, k: int, allowed: Keys | None = None, *, distinct: bool = False
    ) -> tuple[Vectors, Keys, Ordinals]:
        """Return cosines, keys and ordinals, all (q, m), best first and equal scores by key and ordinal.

        `m` is `k`, or less when there are fewer vectors, or with `distinct` fewer keys (among `allowed`, if given).
        """
        parameters, eligible = None, self._keys
        if allowed is not None:
            bits = self._held(allowed)
            parameters = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(np.packbits(bits, bitorder="little")))
            eligible = self._keys[bits]
        wanted = min(k, _distinct(eligible) if distinct else len(eligible))
        found = np.empty((len(vectors), wanted), np.float32), np.empty((len(vectors), wanted), np.int64)
        queries, left = normalized(vectors), np.arange(len(vectors) if wanted else 0)
        # One more than wanted shows whether the last one wanted is tied with what follows.
        depth = min(wanted + 1, len(eligible))
        while len(left):
            step = max(1, _CELLS // depth)
            unsettled = []
            for rows in (left[start : start + step] for start in range(0, len(left), step)):
                with _one_thread():
                    scores, positions = self._flat.search(queries[rows], depth, params=parameters)
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
        """Keep the best of what FAISS gave for some rows, (rows, depth), where it tells them; says for which it does.

        FAISS cuts a run of equal scores anywhere. So what scores as the last one does is sure only where that is
        everything; else one must look deeper, until the key decides and not a heap's state.
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
        """Return which vectors, (n,), stand under any of `keys`."""
        firsts, ends = np.searchsorted(self._keys, keys), np.searchsorted(self._keys, keys, "right")
        steps = np.bincount(firsts, minlength=len(self) + 1) - np.bincount(ends, minlength=len(self) + 1)
        held: NDArray[np.bool_] = steps[:-1].cumsum() > 0
        return held


def _distinct(keys: Keys) -> int:
    """Return how many different ones there are among sorted keys."""
    return int(np.count_nonzero(np.diff(keys))) + 1 if len(keys) else 0


def _firsts(keys: Keys) -> NDArray[np.bool_]:
    """Return where each key, (rows, n), comes for the first time in its row."""
    order = np.argsort(keys, axis=1, kind="stable")
    grouped = np.take_along_axis(keys, order, 1)
    first = np.ones(keys.shape, bool)
    first[:, 1:] = grouped[:, 1:] != grouped[:, :-1]
    firsts = np.empty(keys.shape, bool)
    np.put_along_axis(firsts, order, first, 1)
    return firsts


def checked(vectors: NDArray[np.floating[Any]], dim: int, documents: int | None = None) -> Vectors:
    """Return `vectors` as float32 (n, dim) that a cosine is defined for, one for each of so many documents.

    Raises `InvalidVector`.
    """
    if not isinstance(vectors, np.ndarray) or not np.issubdtype(vectors.dtype, np.floating):
        kind = vectors.dtype if isinstance(vectors, np.ndarray) else type(vectors).__name__
        raise InvalidVector(f"vectors must be an array of floating-point numbers, not of {kind}.")
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise InvalidVector(f"vectors of shape {vectors.shape} do not fit the collection, which takes (n, {dim}).")
    if documents is not None and len(vectors) != documents:
        raise InvalidVector(f"{documents} documents came with {len(vectors)} vectors; send one for each.")
    with np.errstate(over="ignore"):  # beyond float32 is inf, which is refused below
        accepted = vectors.astype(np.float32)
    for position in np.flatnonzero(~np.isfinite(accepted).all(axis=1)):
        raise InvalidVector(f"vector {position} holds NaN, infinity or a number beyond float32.")
    for position in np.flatnonzero(~accepted.any(axis=1)):
        raise InvalidVector(f"vector {position} is all zeros, which has no direction to compare.")
    return accepted


def normalized(vectors: Vectors) -> Vectors:
    """Return a copy of `vectors` (n, dim) with rows of length one."""
    wide = np.array(vectors, np.float64)  # in which no square of a float32 overflows or vanishes
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    return wide.astype(np.float32)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep FAISS on the calling thread, and leave the thread's OpenMP setting as it was.

    Requests already run in threads of their own; a second team of threads under each would only fight them,
    and the encoder, for the same cores. OpenMP keeps the number per thread, so it is set around each search.
    """
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


INDEXES: dict[str, Any] = {"flat": ExactIndex}


def build_index(kind: str, dim: int) -> VectorIndex:
    """Return an empty index of this kind for vectors of `dim` numbers; raises `InvalidIndex`."""
    if kind not in INDEXES:
        raise InvalidIndex(f"unknown index kind {kind!r}; known: {', '.join(sorted(INDEXES))}.")
    index: VectorIndex = INDEXES[kind](dim)
    return index
