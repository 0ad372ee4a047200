"""Hits that are near to the query and not to each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


def diversified(relevance: Numbers, similarities: Numbers, diversity: float, k: int) -> list[int]:
    """Return the places of the `k` best candidates, in the order of choice, by maximal marginal relevance.

    Each is the one with the most (1 - diversity) * relevance - diversity * its greatest similarity to one that was
    chosen before (Carbonell and Goldstein, 1998, "The Use of MMR, Diversity-Based Reranking"), the first by relevance
    alone; of equals the first.

    Args:
        relevance: of each candidate to the query, (n,), on the scale of the similarities.
        similarities: of each candidate to each, (n, n).
        diversity: from 0, which leaves the order of relevance, to 1.
        k: the number wanted; fewer come back only where there are fewer.
    """
    chosen: list[int] = []
    worth, nearest = relevance, np.full(len(relevance), -np.inf)
    left = np.ones(len(relevance), bool)
    for _ in range(min(k, len(relevance))):
        best = int(np.argmax(np.where(left, worth, -np.inf)))
        chosen.append(best)
        left[best] = False
        nearest = np.maximum(nearest, similarities[best])
        worth = (1 - diversity) * relevance - diversity * nearest
    return chosen


def rescaled(scores: Numbers, similarities: Numbers) -> Numbers:
    """Return scores (n,) that are no similarities, moved linearly onto the range of those of each to each (n, n)."""
    if len(scores) < 2:
        return np.ones_like(scores)
    others = similarities[~np.eye(len(scores), dtype=bool)]
    low, high = others.min(), others.max()
    extent = scores.max() - scores.min()
    share = (scores - scores.min()) / extent if extent > 0 else np.ones_like(scores)
    return np.asarray(low + share * (high - low), np.float64)
