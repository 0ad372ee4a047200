"""Token attribution: to the vector of a text, and to the similarity of two texts.

Everything is computed from `Pooler.weights` and `Pooler.terms`:

    >>> import torch
    >>> from pooling import build, explain
    >>> tokens, mask = torch.randn(2, 5, 384), torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]])
    >>> pooler = build("mean", dim=384)
    >>> explain.shares(pooler, tokens, mask)[0]
    tensor([0.2500, 0.2500, 0.2500, 0.2500, 0.0000])
    >>> terms = pooler.terms(tokens, mask)
    >>> matrix = explain.similarity(terms[:1], terms[1:])  # sums to the cosine of the two vectors
    >>> matrix.shape
    torch.Size([1, 5, 5])
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from pooling.base import Pooler
from pooling.weights import normalize

_EPSILON: Final = torch.finfo(torch.float32).tiny
"""Avoids dividing a zero vector by its length."""


def shares(pooler: Pooler, tokens: Tensor, mask: Tensor) -> Tensor:
    """Return the shares of the tokens in the vector, (batch, time), summing to one; arguments as for the pooler.

    The magnitudes of the weights are scaled to sum to one over time; of the built-in strategies and their
    concatenations, this changes `mean_sqrt_len` alone. If each dimension has its own weights (max, gem,
    concatenations), they are scaled per dimension, and the share of a token is the mean over the dimensions: with
    max the fraction of dimensions that it wins, with gem its mean share of the power sums, with `a + b` the mean
    of its shares in both, weighted by their dimensions.
    """
    normalized = normalize(pooler.weights(tokens, mask), mask.bool())
    return normalized if normalized.dim() == 2 else normalized.mean(2)


def similarity(first: Tensor, second: Tensor) -> Tensor:
    """Decompose the cosine of two vectors into contributions of pairs of tokens.

    With u = sum_i p_i and v = sum_j q_j, cos(u, v) = sum_ij p_i.q_j / (|u| |v|), and this returns the terms of
    that sum: for a weighted sum w_i w_j h_i.h_j / (|u| |v|). Along either axis they sum to the contribution of
    one token. A term can be negative. All are zero if either vector is zero.

    Args:
        first: the terms of u, (batch, time, dim), as returned by `Pooler.terms`.
        second: the same for v, (batch, time', dim).

    Returns:
        (batch, time, time').
    """
    lengths: Tensor = torch.linalg.vector_norm(first.sum(1), dim=1) * torch.linalg.vector_norm(second.sum(1), dim=1)
    return torch.bmm(first, second.transpose(1, 2)) / lengths.clamp(min=_EPSILON).reshape(-1, 1, 1)


def strongest(matrix: Tensor, most: int) -> list[tuple[int, int]]:
    """Return (row, column) of the nonzero entries of (time, time') largest in magnitude, in descending order."""
    magnitudes = matrix.abs().flatten()
    order = magnitudes.topk(min(most, int(magnitudes.count_nonzero()))).indices
    return [divmod(index, matrix.shape[1]) for index in order.tolist()]
