"""The second stage of a search: its best hits are scored anew by their texts, and put in that order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

import numpy as np

from service.arrays import Floats
from service.collections.fusion import Part
from service.collections.protocols import Hit
from service.collections.refinement import Refinement
from service.errors import InvalidInput, Place, TooLarge
from service.similarity import Similarity

LEAST_DEPTH: Final = 20
"""Hits that are scored anew unless a search says how many; `k` of them where that is more."""
MOST_DEPTH: Final = 200
"""Hits of one query that are scored anew."""
MOST_RERANKED: Final = 10_000
"""Hits of all queries of one request that are scored anew."""


class Reranker(Protocol):
    """What scores the texts of hits for a query: the higher, the better."""

    async def score(self, query: str, texts: Sequence[str]) -> Floats:
        """Return the score of each text, (texts,), all finite; a text may be empty, or too long to be read whole.

        Raises `ServiceError`.
        """


@dataclass(frozen=True, slots=True)
class Rerank:
    """By what a search is re-ranked, and how many of its hits.

    Args:
        model: name of the reranker that scores the texts of hits; None is MaxSim, over the token states of the
            collection's own encoder.
        depth: how many of the best hits are scored anew, `k` at least; by default `LEAST_DEPTH` or `k`.
    """

    model: str | None = None
    depth: int | None = None

    def of(self, k: int, queries: int) -> int:
        """Return the depth of a search for `k` hits.

        Raises:
            InvalidInput: it is less than `k`.
            TooLarge: it is more than is scored anew, for one query or for all of a request together.
        """
        depth = max(k, LEAST_DEPTH) if self.depth is None else self.depth
        if depth < k:
            raise InvalidInput(
                f"rerank.depth is {depth}, and the {k} hits that are asked for are chosen from as many; "
                f"give a depth from {k} to {MOST_DEPTH}, or lower k.",
                where=Place("rerank"),
            )
        if depth > MOST_DEPTH:
            what = f"k is {k}" if self.depth is None else f"rerank.depth is {depth}"
            raise TooLarge(
                f"{what}, and a search with 'rerank' scores up to {MOST_DEPTH} hits anew; leave it out, or ask for "
                "fewer.",
                where=Place("k" if self.depth is None else "rerank"),
                limit=MOST_DEPTH,
            )
        if queries * depth > MOST_RERANKED:
            raise TooLarge(
                f"{queries} queries with {depth} hits each to re-rank are {queries * depth}, and one request takes "
                f"{MOST_RERANKED}; send fewer queries at once, or a smaller rerank.depth.",
                where=Place("queries"),
                limit=MOST_RERANKED,
            )
        return depth


def refined(hits: Sequence[Hit], k: int, refinement: Refinement, similarity: Similarity) -> list[Hit]:
    """Return the `k` best of hits that were re-ranked, found with `Refinement.before_reranking`, as is asked for."""
    kept = refinement.kept(hits)
    if refinement.diversity is not None and kept:
        vectors = np.stack([hit.vector for hit in kept if hit.vector is not None])
        kept = refinement.chosen(kept, vectors, similarity, k)
    return kept[:k] if refinement.vectors else [replace(hit, vector=None) for hit in kept[:k]]


async def reranked(reranker: Reranker, query: str, hits: Sequence[Hit], stage: str) -> list[Hit]:
    """Return hits in the order of their scores for the query, equal ones as they were.

    What counts is the text of a hit's span, or of its document where it has none. The rank and the score that a hit
    had stay in its parts, under the name of the first `stage`.
    """
    if not hits:
        return []
    scores = (await reranker.score(query, [_text(hit) for hit in hits])).tolist()
    anew = [
        replace(hit, score=score, parts={**(hit.parts or {}), stage: Part(rank, hit.score)})
        for rank, (hit, score) in enumerate(zip(hits, scores, strict=True), 1)
    ]
    return sorted(anew, key=lambda hit: -hit.score)


def _text(hit: Hit) -> str:
    if hit.span is None:
        return hit.text
    start, end = hit.span
    return hit.text[start:end]
