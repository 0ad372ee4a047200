"""The kinds of vector index, by name."""

from __future__ import annotations

from typing import Final

from service.errors import InvalidIndex
from service.index.base import VectorIndex
from service.index.flat import ExactIndex
from service.similarity import Similarity

KINDS: Final[dict[str, type[VectorIndex]]] = {cls.kind: cls for cls in (ExactIndex,)}


def build(kind: str, dim: int, similarity: Similarity) -> VectorIndex:
    """Return an empty index of a kind for vectors of `dim` numbers; raises `InvalidIndex` for an unknown kind."""
    if kind not in KINDS:
        raise InvalidIndex(f"unknown index kind {kind!r}; known: {', '.join(sorted(KINDS))}.")
    return KINDS[kind](dim, similarity)
