"""Strategies between the mean and the max: by how many values count, and by how much the large ones do."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from pooling.base import Pooler, PoolingError, check_count
from pooling.weights import uniform, weighted_sum

BETA_RANGE: Final = (0.001, 1000.0)


class KMax(Pooler):
    """The mean of the k largest values of each dimension (k-max pooling; Kalchbrenner et al. 2014).

    With k = 1 it is the max. Of a text of k tokens or fewer it takes the mean.

    Args:
        dim: size of a token state.
        k: how many values count.
    """

    name = "kmax"
    summary = "per dimension, the mean of the k largest values"
    good_for = "whether a feature is there, without one outlier deciding alone"
    weak_at = "training: the gradient reaches winners only"

    def __init__(self, dim: int, k: int = 3) -> None:
        super().__init__(dim)
        check_count("k", k)
        self.k = k

    @property
    def linear(self) -> bool:
        """True: each of the largest values of a dimension has the same weight there."""
        return True

    def _largest(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the largest values (batch, k', dim), where they stand, and the share of each (batch, k', 1)."""
        most = min(self.k, tokens.shape[1])
        values, places = tokens.masked_fill(~mask.unsqueeze(2), -torch.inf).topk(most, dim=1)
        counted = mask.sum(1).clamp(max=most).reshape(-1, 1, 1)
        counts = torch.arange(most, device=tokens.device).reshape(1, -1, 1) < counted
        return values.masked_fill(~counts, 0.0), places, counts / counted.to(tokens.dtype)

    def _pool(self, tokens: Tensor, mask: Tensor) -> Tensor:
        values, _, shares = self._largest(tokens, mask)
        return (values * shares).sum(1)

    def _weights(self, tokens: Tensor, mask: Tensor) -> Tensor:
        _, places, shares = self._largest(tokens, mask)
        return torch.zeros_like(tokens).scatter(1, places, shares.expand_as(places))


class LogSumExp(Pooler):
    """The smooth max log(mean of exp(beta h)) / beta of each dimension: mean as beta falls to 0, max as it grows.

    Args:
        dim: size of a token state.
        beta: how much the larger values count, from 0.001 to 1000.

    `weights` returns the softmax of beta h over the tokens, per dimension, which is also its gradient.
    """

    name = "logsumexp"
    summary = "smooth max: between mean (beta near 0) and max"
    good_for = "signed states, of which it takes a soft max; training, as every token gets a gradient"
    weak_at = "encoders whose states have another scale than beta was chosen for"

    def __init__(self, dim: int, beta: float = 1.0) -> None:
        super().__init__(dim)
        if type(beta) not in (int, float) or not BETA_RANGE[0] <= beta <= BETA_RANGE[1]:
            raise PoolingError(f"beta={beta!r}: must be a number from {BETA_RANGE[0]} to {BETA_RANGE[1]}")
        self.beta = float(beta)

    def _below(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the largest values (batch, 1, dim), and beta times how far each is below (batch, time, dim)."""
        largest = tokens.detach().masked_fill(~mask.unsqueeze(2), -torch.inf).amax(1, keepdim=True)
        return largest, self.beta * (tokens - largest).masked_fill(~mask.unsqueeze(2), 0.0)

    def _pool(self, tokens: Tensor, mask: Tensor) -> Tensor:
        largest, below = self._below(tokens, mask)
        shares = uniform(mask, tokens)
        # Near 0 the logarithm loses what exp(x) - 1 keeps, and near -1 the other way round.
        less = weighted_sum(shares, below.expm1())
        near = less > -0.5
        logs = torch.where(near, less, 0.0).log1p() + torch.where(near, 1.0, weighted_sum(shares, below.exp())).log()
        return largest.squeeze(1) + logs / self.beta

    def _weights(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return self._below(tokens, mask)[1].masked_fill(~mask.unsqueeze(2), -torch.inf).softmax(1)
