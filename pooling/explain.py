"""Which token gave how much: to a text's vector, and to the similarity of two texts.

Everything follows from two things that a strategy says of itself, `Pooler.weights` and `Pooler.terms`:

    >>> import torch
    >>> from pooling import build, explain
    >>> tokens, mask = torch.randn(2, 5, 384), torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]])
    >>> pooler = build("mean", dim=384)
    >>> explain.shares(pooler, tokens, mask)[0]
    tensor([0.2500, 0.2500, 0.2500, 0.2500, 0.0000])
    >>> terms = pooler.terms(tokens, mask)
    >>> matrix = explain.similarity(terms[:1], terms[1:])  # adds up to the cosine of the two vectors
    >>> matrix.shape
    torch.Size([1, 5, 5])
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from pooling.base import Pooler, portions

_LEAST: Final = torch.finfo(torch.float32).tiny
"""Keeps a vector of zeros from being divided by its length."""


def shares(pooler: Pooler, tokens: Tensor, mask: Tensor) -> Tensor:
    """One share of the vector a token, (batch, time), adding up to one; arguments and errors as for the pooler.

    The rule: weights are taken by magnitude and made to add up to one along time, which matters for
    `mean_sqrt_len` alone among the built-in strategies and their concatenations. Where each dimension has weights
    of its own (max, gem, concatenations), this is done for each dimension, and a token's share is the mean over
    the dimensions: under max the part of the dimensions that it wins, under gem its mean share of the power
    sums, under `a + b` the mean of its shares under both, weighted by their sizes.
    """
    found = portions(pooler.weights(tokens, mask), mask.bool())
    return found if found.dim() == 2 else found.mean(2)


def similarity(first: Tensor, second: Tensor) -> Tensor:
    """The cosine of two vectors as a sum over the pairs of their tokens.

    With u = sum_i p_i and v = sum_j q_j, cos(u, v) = sum_ij p_i.q_j / (|u| |v|), and this gives the terms of
    that sum: for a weighted sum w_i w_j h_i.h_j / (|u| |v|). Along either axis they add up to what one token
    contributes. A term can be negative. All are zero where a vector is.

    Args:
        first: what each token gives to u, (batch, time, dim), as `Pooler.terms` has it.
        second: the same for v, (batch, time', dim).

    Returns:
        (batch, time, time').

    """
    lengths: Tensor = torch.linalg.vector_norm(first.sum(1), dim=1) * torch.linalg.vector_norm(second.sum(1), dim=1)
    return torch.bmm(first, second.transpose(1, 2)) / lengths.clamp(min=_LEAST).reshape(-1, 1, 1)


def strongest(matrix: Tensor, most: int) -> list[tuple[int, int]]:
    """The places (row, column) of the entries of (time, time') largest in magnitude, the largest first; no zeros."""
    sizes = matrix.abs().flatten()
    order = sizes.topk(min(most, int(sizes.count_nonzero()))).indices
    return [divmod(place, matrix.shape[1]) for place in order.tolist()]
