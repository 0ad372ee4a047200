"""Similarity: how well the similarities of vectors follow scores that people gave, by rank and linear correlation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

from pooling.tasks.columns import number, text
from pooling.tasks.comparison import COSINE, Cosine
from pooling.tasks.task import DataError, Indices, Outcomes, Part, Task, Values, Vectors, distinct, take


class Similarity(Task):
    """Pairs of texts, each with a score on any scale, higher for more similar texts."""

    columns = (("sentence1", text), ("sentence2", text), ("score", number))
    layout, data, kind, items = "pairs", "scored pairs", "similarity", "pairs"
    metrics = ("spearman", "pearson")

    def __init__(self, first: Sequence[str], second: Sequence[str], scores: Sequence[float]) -> None:
        self.first, self.second, self.scores = first, second, np.array(scores)
        texts, indices = distinct([*first, *second])
        self.pairs: Indices = indices.reshape(2, -1).T
        """(pairs, 2), indices into the texts of the only part."""
        self.parts = (Part(texts),)
        self.size = len(self.scores)

    @property
    def rows(self) -> list[frozenset[str]]:
        """Both texts of each pair, so that their order does not matter."""
        return [frozenset(pair) for pair in zip(self.first, self.second, strict=True)]

    def select(self, rows: Sequence[int]) -> Similarity:
        """Return the task of some of the pairs."""
        first, second = take(rows, self.first, self.second)
        return Similarity(first, second, self.scores[list(rows)].tolist())

    def check_variety(self) -> None:
        """Check that the scores differ."""
        if len(np.unique(self.scores)) == 1:
            raise DataError(
                f"every pair has the score {self.scores[0]:g}, so there is no order to follow. Scores must differ."
            )

    def outcomes(self, parts: Sequence[Vectors]) -> Outcomes:
        """Compute the score of each pair."""
        first, second = self.pairs.T
        return compared(self.comparison, parts[0][first], parts[0][second])

    def score(self, outcomes: Outcomes, chosen: Indices) -> Values:
        """Compute Spearman's and Pearson's correlation."""
        scores = self.scores[chosen]
        return np.stack([spearman(outcomes, scores), pearson(outcomes, scores)], axis=-1)

    def perturbable(self, chosen: Indices) -> Part:
        """Return both texts of each pair: all first ones, then all second ones."""
        return Part([side[pair] for side in (self.first, self.second) for pair in chosen])

    def perturbed_outcomes(self, chosen: Indices, versions: Sequence[Vectors], parts: Sequence[Vectors]) -> Outcomes:
        """Compute the score of each pair, both of whose texts are perturbed."""
        return np.stack([compared(self.comparison, *np.split(vectors, 2)) for vectors in versions])


def cosines(first: Vectors, second: Vectors) -> Values:
    """Compute the cosine of each pair of vectors, (pairs, dim) both."""
    return compared(COSINE, first, second)


def compared(comparison: Cosine, first: Vectors, second: Vectors) -> Values:
    """Compute the score of each pair of vectors, (pairs, dim) both.

    In float32 and by the steps of sentence-transformers' `pairwise_cos_sim` and its kind. Where many vectors are
    equal (the first token of a causal model), which of the cosines round to just below 1 decides the ranks, and
    another formula gives another figure.
    """
    return comparison.pairs(comparison.prepared(first), comparison.prepared(second)).numpy().astype(np.float64)


def spearman(predicted: Values, scores: Values) -> Values:
    """Compute Spearman's rank correlation of `predicted` (..., pairs) with `scores` (pairs,).

    Ties share their mean rank.
    """
    return pearson(rankdata(predicted, axis=-1), rankdata(scores))


def pearson(predicted: Values, scores: Values) -> Values:
    """Compute Pearson's linear correlation of `predicted` (..., pairs) with `scores` (pairs,).

    0 where it is undefined, because all predictions or all scores are equal.
    """
    left = predicted - predicted.mean(axis=-1, keepdims=True)
    right = scores - scores.mean()
    scale = np.sqrt((left**2).sum(axis=-1) * (right**2).sum())
    found: Values = np.divide(left @ right, scale, out=np.zeros_like(scale), where=scale > 0)
    return found
