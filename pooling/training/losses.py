"""What a pooler is fitted to."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

SCALE: Final = 20.0
"""Cosines are multiplied by it, as in sentence-transformers: the inverse of a temperature of 0.05."""


def cosent(cosines: Tensor, scores: Tensor, scale: float = SCALE) -> Tensor:
    """CoSENT (Su 2022): log(1 + sum of exp(scale (c_j - c_i)) over all i, j of which i has the higher score).

    Only the order of the scores matters, which is what a rank correlation measures. A batch in which all
    scores are equal has a loss of zero.

    Args:
        cosines: (pairs,), of the vectors of each pair.
        scores: (pairs,), how alike they should be.
        scale: as `SCALE`.

    """
    wrong = scale * (cosines.unsqueeze(0) - cosines.unsqueeze(1))
    wrong = wrong[scores.unsqueeze(1) > scores.unsqueeze(0)]
    return torch.cat([wrong.new_zeros(1), wrong]).logsumexp(0)


def in_batch_negatives(cosines: Tensor, left_out: Tensor, scale: float = SCALE) -> Tensor:
    """Multiple negatives ranking (Henderson et al. 2017): each query's own document among those of the batch.

    Args:
        cosines: (queries, documents), as many of each; document i belongs to query i.
        left_out: (queries, documents), bool: documents that are no negative of a query, as they are relevant
            to it too. The diagonal must be false.
        scale: as `SCALE`.

    """
    logits = (scale * cosines).masked_fill(left_out, -torch.inf)
    return F.cross_entropy(logits, torch.arange(len(cosines)))
