"""What a collection asks of a vector index."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Protocol

from service.arrays import Keys, Ordinals, Vectors
from service.similarity import Similarity


class IndexView(Protocol):
    """What an index held at one moment. Searches of it run beside changes of the index and each other."""

    def __len__(self) -> int:
        """Return the number of vectors."""

    @property
    def count(self) -> int:
        """The number of keys."""

    @property
    def memory_bytes(self) -> int:
        """Bytes held by vectors and keys."""

    def search(
        self, vectors: Vectors, k: int, allowed: Keys | None = None, *, distinct: bool = False
    ) -> tuple[Vectors, Keys, Ordinals]:
        """Return scores, keys and ordinals, each (q, m), of the `m` <= `k` nearest vectors to each query (q, dim).

        The best come first, equal scores by key, then by ordinal. `allowed` are the keys that may be found, None for
        all; with `distinct`, only the best vector of each key counts.
        """


class VectorIndex(ABC):
    """Vectors under keys, searched by a similarity; a key may have several vectors.

    It is created empty, from the dimension of its vectors, which have passed the similarity's check, and the
    similarity. Calls that change it never overlap each other; they may overlap all others.
    """

    kind: ClassVar[str]
    """The name that a collection chooses it by."""
    summary: ClassVar[str]
    """What it does, in a few words, for the API's documentation."""

    @abstractmethod
    def __init__(self, dim: int, similarity: Similarity) -> None: ...

    @abstractmethod
    def add(self, keys: Keys, vectors: Vectors) -> None:
        """Add `vectors` (n, dim) under `keys` (n,), never descending and above every key added before."""

    @abstractmethod
    def remove(self, keys: Keys) -> None:
        """Remove all vectors of `keys`; absent keys are ignored."""

    @abstractmethod
    def view(self) -> IndexView:
        """Return what the index holds now; a later change leaves it as it is."""

    def __len__(self) -> int:
        return len(self.view())

    @property
    def count(self) -> int:
        """The number of keys."""
        return self.view().count

    @property
    def memory_bytes(self) -> int:
        """Bytes held by vectors and keys."""
        return self.view().memory_bytes

    def search(
        self, vectors: Vectors, k: int, allowed: Keys | None = None, *, distinct: bool = False
    ) -> tuple[Vectors, Keys, Ordinals]:
        """Search what the index holds now, as `IndexView` describes."""
        return self.view().search(vectors, k, allowed, distinct=distinct)
