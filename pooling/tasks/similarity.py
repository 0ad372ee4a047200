"""How well cosines follow scores that people gave: rank and linear correlation."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata

Vectors = NDArray[np.float32]
Values = NDArray[np.float64]


def cosines(first: Vectors, second: Vectors) -> Values:
    """Cosine of each pair of vectors, (pairs, dim) both.

    In float32 and by the steps of sentence-transformers' `pairwise_cos_sim`. Where many vectors are equal (the
    first token of a causal model), which of the cosines round to just below 1 decides the ranks, and another
    formula gives another figure.
    """
    normalize = torch.nn.functional.normalize
    left, right = (torch.from_numpy(np.ascontiguousarray(vectors)) for vectors in (first, second))
    found: Values = (normalize(left, dim=1) * normalize(right, dim=1)).sum(dim=1).numpy().astype(np.float64)
    return found


def spearman(predicted: Values, scores: Values) -> Values:
    """Spearman's rank correlation of `predicted` (..., pairs) with `scores` (pairs,); ties share their mean rank."""
    return pearson(rankdata(predicted, axis=-1), rankdata(scores))


def pearson(predicted: Values, scores: Values) -> Values:
    """Pearson's linear correlation of `predicted` (..., pairs) with `scores` (pairs,).

    0 where all predictions, or all scores, are equal: they say nothing of one another.
    """
    left = predicted - predicted.mean(axis=-1, keepdims=True)
    right = scores - scores.mean()
    scale = np.sqrt((left**2).sum(axis=-1) * (right**2).sum())
    found: Values = np.divide(left @ right, scale, out=np.zeros_like(scale), where=scale > 0)
    return found
