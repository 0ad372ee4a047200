"""The vectors of documents: one for each, or one for each of its spans."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidVector
from service.index.flat import Keys, Vectors, checked
from service.store.document import Spans


@dataclass(frozen=True, slots=True)
class Chunked:
    """Vectors (chunks, dim) of documents that are cut into spans: those of the first document, then the next."""

    vectors: NDArray[np.floating[Any]]
    spans: Sequence[Spans]


Embedded = NDArray[np.floating[Any]] | Chunked
"""Vectors (documents, dim) of whole texts, or of their spans."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """Vectors (n, dim) that can be stored, and for each document how many of them it has and of what spans."""

    vectors: Vectors
    counts: list[int]
    spans: Sequence[Spans | None]

    def __iter__(self) -> Iterator[tuple[Vectors, Spans | None]]:
        """Each document's vectors (its count, dim) and spans."""
        last = 0
        for count, spans in zip(self.counts, self.spans, strict=True):
            last += count
            yield self.vectors[last - count : last], spans

    def repeated(self, keys: Keys) -> Keys:
        """The documents' keys (documents,) -> the key that each vector stands under (n,)."""
        return np.repeat(keys, self.counts)


def accept(embedded: Embedded, dim: int, documents: int) -> Accepted:
    """Check vectors of `dim` numbers for so many documents; raises `InvalidVector`."""
    if not isinstance(embedded, Chunked):
        return Accepted(checked(embedded, dim, documents), [1] * documents, [None] * documents)
    counts = [len(spans) for spans in embedded.spans]
    if len(counts) != documents or not all(counts):
        raise InvalidVector(
            f"{documents} documents came with spans for {sum(map(bool, counts))}; send one or more for each."
        )
    vectors = checked(embedded.vectors, dim)
    if len(vectors) != sum(counts):
        raise InvalidVector(f"{sum(counts)} spans came with {len(vectors)} vectors; send one for each.")
    return Accepted(vectors, counts, embedded.spans)
