"""The kinds of vector index, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from service.errors import InvalidIndex, Place
from service.index.base import NO_VECTORS, BuiltIndex, VectorIndex, VectorSource
from service.index.flat import ExactIndex
from service.index.hnsw import AutoIndex, HnswIndex
from service.index.ivf import IvfIndex
from service.similarity import Similarity

KINDS: Final[dict[str, type[VectorIndex]]] = {cls.kind: cls for cls in (AutoIndex, ExactIndex, HnswIndex, IvfIndex)}

DEFAULT: Final = AutoIndex.kind
"""The kind that a collection has unless it asks for one."""


def recall_of(kind: str, recall: float | None) -> float | None:
    """Return the recall that an index of a kind is asked for, its own by default; None for exact kinds."""
    cls = KINDS.get(kind)
    return cls.default_recall if recall is None and cls is not None and issubclass(cls, BuiltIndex) else recall


def build(
    kind: str,
    dim: int,
    similarity: Similarity,
    recall: float | None = None,
    folder: Path | None = None,
    source: VectorSource = NO_VECTORS,
) -> VectorIndex:
    """Return an empty index of a kind for vectors of `dim` numbers.

    `recall` is what is asked of a kind that approximates, None for its own; `folder` is where its snapshots are kept,
    and `source` where vectors are read that it does not hold.
    Raises `InvalidIndex` for an unknown kind, and for a recall that the kind does not take.
    """
    if kind not in KINDS:
        raise InvalidIndex(f"unknown index kind {kind!r}; known: {', '.join(sorted(KINDS))}.", where=Place("index"))
    cls = KINDS[kind]
    if issubclass(cls, BuiltIndex):
        return cls(dim, similarity, recall, folder, source)
    if recall is not None:
        raise InvalidIndex(
            f"an index of the kind {kind!r} takes no recall, since it finds all of the nearest.",
            where=Place("recall"),
        )
    return cls(dim, similarity)
