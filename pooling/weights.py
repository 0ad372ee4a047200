"""Operations on the weights of tokens: (batch, time), or (batch, time, dim) where each dimension has its own."""

from __future__ import annotations

import torch
from torch import Tensor


def uniform(mask: Tensor, like: Tensor) -> Tensor:
    """Return equal shares of the tokens that count, 1/T for each of T, zero elsewhere, in the dtype of `like`."""
    return mask.to(like.dtype) / mask.sum(1, keepdim=True)


def expand(weights: Tensor, width: int) -> Tensor:
    """Expand weights (batch, time) or (batch, time, dim) to one per output dimension: (batch, time, width)."""
    if weights.dim() == 2:
        return weights.unsqueeze(2).expand(-1, -1, width)
    return weights.repeat(1, 1, width // weights.shape[2])


def normalize(weights: Tensor, mask: Tensor) -> Tensor:
    """Return the magnitudes of weights, of either shape, scaled to sum to one over time.

    Where all are zero, the tokens that count get equal shares.
    """
    mask = mask if weights.dim() == 2 else mask.unsqueeze(2)
    magnitudes = weights.abs()
    total = magnitudes.sum(1, keepdim=True)
    shares = magnitudes / total.clamp(min=torch.finfo(magnitudes.dtype).tiny)
    return torch.where(total > 0, shares, uniform(mask, shares))


def product(first: Tensor, second: Tensor) -> Tensor:
    """Return the product of two sets of weights, per dimension if either is per dimension."""
    if first.dim() == second.dim() == 2:
        return first * second
    width = second.shape[2] if second.dim() == 3 else first.shape[2]
    return expand(first, width) * expand(second, width)


def weighted_sum(weights: Tensor, tokens: Tensor) -> Tensor:
    """Sum (batch, time, dim) weighted by (batch, time): (batch, dim)."""
    return torch.bmm(weights.unsqueeze(1), tokens).squeeze(1)
