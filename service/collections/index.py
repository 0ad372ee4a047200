"""Vector indexes: which keys lie nearest to a query."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import faiss as _typed_faiss
import numpy as np
from numpy.typing import NDArray

from service.collections.errors import InvalidIndex, InvalidVector

# FAISS's type information describes the C++ signatures under it, not those that Python sees.
faiss: Any = _typed_faiss

Keys = NDArray[np.int64]
Vectors = NDArray[np.float32]


class VectorIndex(Protocol):
    """What a collection asks of an index. Calls that change it never overlap any other call."""

    def __len__(self) -> int: ...

    @property
    def memory_bytes(self) -> int:
        """Bytes held by vectors and keys."""

    def add(self, keys: Keys, vectors: Vectors) -> None:
        """Add `vectors` (n, dim) under `keys` (n,), ascending and above every key added before."""

    def remove(self, keys: Keys) -> None:
        """Forget `keys`; absent ones are passed over."""

    def search(self, vectors: Vectors, k: int, allowed: Keys | None = None) -> tuple[Vectors, Keys]:
        """Return for each of `vectors` (q, dim) the scores and keys, both (q, m) with m <= k, best first.

        Only `allowed` keys, if given, can be found.
        """


class ExactIndex:
    """Cosine similarity against every vector: FAISS's flat inner product over normalised copies.

    Keys are kept here, sorted, and not in an `IndexIDMap`: a position is then found by bisection, so that a
    filter costs one bit a vector whatever the keys have grown to, and positions are in the order of keys.
    """

    def __init__(self, dim: int) -> None:
        self._flat = faiss.IndexFlatIP(dim)
        self._keys: Keys = np.empty(0, np.int64)

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def memory_bytes(self) -> int:
        """Bytes held by vectors and keys."""
        return int(self._flat.ntotal * self._flat.code_size + self._keys.nbytes)

    def add(self, keys: Keys, vectors: Vectors) -> None:
        """Add `vectors` (n, dim) under `keys` (n,), ascending and above every key added before."""
        grown = np.concatenate([self._keys, keys])
        if np.any(np.diff(grown[max(len(self._keys) - 1, 0) :]) <= 0):
            raise ValueError("keys must ascend and lie above every key added before")
        self._flat.add(normalized(vectors))
        self._keys = grown

    def remove(self, keys: Keys) -> None:
        """Forget `keys`; absent ones are passed over."""
        positions = self._positions(keys)
        if len(positions):
            self._flat.remove_ids(positions)  # shifts the rest down, in order, as np.delete does
            self._keys = np.delete(self._keys, positions)

    def search(self, vectors: Vectors, k: int, allowed: Keys | None = None) -> tuple[Vectors, Keys]:
        """Return cosines and keys, both (q, m), best first and equal scores by key.

        `m` is `k`, or less when there are fewer vectors (among `allowed`, if given).
        """
        parameters, available = None, len(self)
        if allowed is not None:
            bits = np.zeros(len(self), bool)
            bits[self._positions(allowed)] = True
            bitmap = np.packbits(bits, bitorder="little")
            parameters = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bitmap))
            available = int(bits.sum())
        wanted = min(k, available)
        if not wanted or not len(vectors):
            return np.empty((len(vectors), wanted), np.float32), np.empty((len(vectors), wanted), np.int64)

        queries = normalized(vectors)
        # FAISS cuts a run of equal scores anywhere. One more than wanted shows whether the cut goes through
        # such a run; if so, look deeper until the run ends, so that the key decides and not a heap's state.
        depth = min(wanted + 1, available)
        with _one_thread():
            scores, positions = self._flat.search(queries, depth, params=parameters)
            while depth < available and np.any(scores[:, -1] == scores[:, wanted - 1]):
                depth = min(depth * 8, available)
                scores, positions = self._flat.search(queries, depth, params=parameters)
        order = np.lexsort((positions, -scores))[:, :wanted]
        return (
            np.take_along_axis(scores, order, axis=1),
            self._keys[np.take_along_axis(positions, order, axis=1)],
        )

    def _positions(self, keys: Keys) -> Keys:
        """Return the positions of those `keys` that are present."""
        if not len(self):
            return np.empty(0, np.int64)
        positions = np.searchsorted(self._keys, keys)
        found = self._keys[np.minimum(positions, len(self) - 1)] == keys
        present: Keys = positions[found]
        return present


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
