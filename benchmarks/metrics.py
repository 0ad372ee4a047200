"""Scores of similarity and retrieval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sentence_transformers.util import pairwise_cos_sim
from sklearn.metrics import ndcg_score


def spearman(first: NDArray[np.float32], second: NDArray[np.float32], scores: Sequence[float]) -> float:
    """Spearman's rank correlation x 100 between cosine and score, for vectors (pairs, dim).

    The cosine is sentence-transformers' own, in float32. Where many vectors are equal (the first token of a
    causal model), which of the cosines round to just below 1 decides the ranks, and another formula gives
    another figure.
    """
    return float(spearmanr(pairwise_cos_sim(first, second).numpy(), scores).statistic) * 100


def retrieval(
    rankings: Mapping[str, Sequence[str]], relevance: Mapping[str, Mapping[str, int]], k: int = 10
) -> dict[str, float]:
    """nDCG@k with graded gain, recall@k and MRR@k, means over the queries that have a relevant document.

    Args:
        rankings: for each query the ids found, the best first, at least `k` of them where there are as many.
        relevance: for each query the relevant ids and their grade.
        k: how deep a ranking counts.

    """
    ndcg, recall, reciprocal = [], [], []
    for query, grades in relevance.items():
        found = list(rankings[query])[:k]
        ids = list(dict.fromkeys([*found, *grades]))
        # What was not found ranks below all that was, where it cannot count any more.
        scores = [float(len(found) - found.index(item)) if item in found else -1.0 for item in ids]
        ndcg.append(ndcg_score([[grades.get(item, 0) for item in ids]], [scores], k=k, ignore_ties=True))
        hits = [place for place, item in enumerate(found, 1) if item in grades]
        recall.append(len(hits) / len(grades))
        reciprocal.append(1 / hits[0] if hits else 0.0)
    return {
        f"ndcg@{k}": float(np.mean(ndcg)),
        f"recall@{k}": float(np.mean(recall)),
        f"mrr@{k}": float(np.mean(reciprocal)),
    }
