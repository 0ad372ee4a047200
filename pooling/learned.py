"""Strategies with parameters. The learned ones start out as the mean, so that an untrained one is harmless."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Final, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pooling.base import Pooler, PoolingError, Stage, WeightedPooler, check_choice, check_count
from pooling.weights import normalize, product, uniform, weighted_sum

MAX_HEADS: Final = 64
MAX_PROJECTION: Final = 8192
P_RANGE: Final = (0.01, 100.0)
CLAMP: Final = 1e-6
NEGLIGIBLE: Final = 1e-12
"""Lower bound of scaled magnitudes, whose maximum is about one: keeps logarithms and gradients finite at zero."""


def softmax_over_time(scores: Tensor, mask: Tensor) -> Tensor:
    """Return the softmax of (batch, time) or (batch, time, heads) over the tokens that count; zero elsewhere."""
    mask = mask if scores.dim() == 2 else mask.unsqueeze(2)
    return scores.masked_fill(~mask, -torch.inf).softmax(1)


class Scored(WeightedPooler, Stage):
    """A weighted mean from one score per token; as a stage, each of T states is multiplied by T times its weight."""

    learned = True

    @abstractmethod
    def _scores(self, tokens: Tensor) -> Tensor:
        """Score each token: (batch, time, dim) -> (batch, time)."""

    def _weights(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return softmax_over_time(self._scores(tokens), mask)

    def _factors(self, tokens: Tensor, mask: Tensor) -> Tensor:
        # With T times the weights, the mean of the new states is the weighted mean of the old ones.
        return self._weights(tokens, mask) * mask.sum(1, keepdim=True)

    def _transform(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return tokens * self._factors(tokens, mask).unsqueeze(2), mask

    def _trace(self, weights: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        return product(self._factors(tokens, mask), weights)


class Attention(Scored):
    """A mean weighted by the softmax over the tokens of (h.q)/sqrt(dim), with a learned query q.

    Args:
        dim: size of a token state.
        scores: `query` as above; `descriptors` scores a token by a learned linear combination of the max and
            the mean over its dimensions (the descriptors of CBAM's spatial attention; Woo et al. 2018).
    """

    name = "attention"
    summary = "a mean whose weights are a softmax of learned scores"
    good_for = "learning which tokens matter; encoders trained for no pooling"
    weak_at = "small data, which it can overfit"

    def __init__(self, dim: int, scores: Literal["query", "descriptors"] = "query") -> None:
        super().__init__(dim)
        check_choice("scores", scores, ("query", "descriptors"))
        self.scores = scores
        self.query = nn.Parameter(torch.zeros(dim if scores == "query" else 2))

    def _scores(self, tokens: Tensor) -> Tensor:
        query = self.query.to(tokens.dtype)
        if self.scores == "query":
            return tokens @ query / math.sqrt(self.dim)
        return torch.stack([tokens.amax(2), tokens.mean(2)], dim=2) @ query


class Gated(Scored):
    """sum(g h) / sum(g) with gates g = sigmoid(w.h + b), each computed from one token alone."""

    name = "gated"
    summary = "a mean whose weights are learned gates, one a token"
    good_for = "suppressing filler tokens independently of each other"
    weak_at = "comparing tokens, which it cannot"

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.weight = nn.Parameter(torch.zeros(dim))
        self.bias = nn.Parameter(torch.zeros(()))

    def _scores(self, tokens: Tensor) -> Tensor:
        # g / sum(g) is the softmax of log g, which stays finite when every gate is nearly closed.
        return F.logsigmoid(tokens @ self.weight.to(tokens.dtype) + self.bias.to(tokens.dtype))


class MultiHeadAttention(Pooler):
    """Several learned queries, each with its own softmax over the tokens.

    By default each head attends over whole states, as the seed vectors of Set Transformer's PMA do (Lee et al.
    2019). The heads start equal, as the mean, and get equal gradients, so call `separate_heads` before fitting
    them. With `split_heads` each head attends over its own slice of the state, the usual multi-head layout.

    Args:
        dim: size of a token state.
        heads: number of queries, k.
        combine: without `split_heads`: `concat` yields k * dim dimensions, `mean` yields dim.
        split_heads: each head pools its own slice of dim/k dimensions; yields dim.
        projection: product the vector by a learned square matrix, initially the identity.

    `weights` returns the mean of the heads' weights, before any projection.
    """

    name = "multihead_attention"
    summary = "several attentions, one for each aspect of a text"
    good_for = "several aspects of one text; encoders trained for no pooling"
    weak_at = "small data: the most parameters to fit"
    learned = True

    def __init__(
        self,
        dim: int,
        heads: int = 4,
        combine: Literal["concat", "mean"] = "concat",
        split_heads: bool = False,
        projection: bool = False,
    ) -> None:
        super().__init__(dim)
        check_count("heads", heads, MAX_HEADS)
        check_choice("combine", combine, ("concat", "mean"))
        check_choice("split_heads", split_heads, (True, False))
        check_choice("projection", projection, (True, False))
        if split_heads and combine == "mean":
            raise PoolingError("combine='mean': split heads each make their own slice of the vector; leave it out")
        if split_heads and dim % heads:
            raise PoolingError(f"heads={heads}: split heads must divide the dimension, {dim}")
        self.heads = heads
        self.combine = combine
        self.split_heads = split_heads
        self.projection = projection
        self.queries = nn.Parameter(torch.zeros(heads, dim // heads if split_heads else dim))
        if projection:
            if self.output_dim > MAX_PROJECTION:
                raise PoolingError(f"projection=True: {self.output_dim} dimensions, at most {MAX_PROJECTION}")
            self.output = nn.Parameter(torch.eye(self.output_dim))

    @property
    def output_dim(self) -> int:
        """Size of the vector: heads * dim if heads over whole states are concatenated, else dim."""
        return self.dim if self.split_heads or self.combine == "mean" else self.heads * self.dim

    @property
    def linear(self) -> bool:
        """Whether the mean of the heads' weights yields the vector."""
        return self.combine == "mean" and not self.projection

    @property
    def exact(self) -> bool:
        """True: `terms` use the weights of each head, and the projection."""
        return True

    def separate_heads(self, generator: torch.Generator | None = None, std: float = 0.02) -> None:
        """Draw small random queries; equal heads would get equal gradients and stay equal."""
        with torch.no_grad():
            self.queries.normal_(0.0, std, generator=generator)

    def _slices(self, tokens: Tensor) -> Tensor:
        """Reshape (batch, time, dim) to (batch, time, heads, dim / heads)."""
        return tokens.reshape(*tokens.shape[:2], self.heads, -1)

    def _head_weights(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return the weights of each head, (batch, time, heads)."""
        queries = self.queries.to(tokens.dtype) / math.sqrt(self.queries.shape[1])
        if self.split_heads:
            scores = torch.einsum("btks,ks->btk", self._slices(tokens), queries)
        else:
            scores = tokens @ queries.T
        return softmax_over_time(scores, mask)

    def _pool(self, tokens: Tensor, mask: Tensor) -> Tensor:
        weights = self._head_weights(tokens, mask)
        if self.split_heads:
            return self._combine(torch.einsum("btk,btks->bks", weights, self._slices(tokens)))
        return self._combine(weights.transpose(1, 2) @ tokens)

    def _weights(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return self._head_weights(tokens, mask).mean(2)

    def _terms(self, tokens: Tensor, mask: Tensor) -> Tensor:
        states = self._slices(tokens) if self.split_heads else tokens.unsqueeze(2)
        return self._combine(self._head_weights(tokens, mask).unsqueeze(3) * states)

    def _combine(self, vectors: Tensor) -> Tensor:
        """Combine the vectors of the heads: (..., heads, size) -> (..., output_dim)."""
        vector = vectors.mean(-2) if self.combine == "mean" else vectors.flatten(-2)
        return vector @ self.output.to(vector.dtype) if self.projection else vector


class GeM(Pooler):
    """Generalised mean, (mean of f(h)^p)^(1/p) (Radenovic et al. 2018): mean at p = 1, max as p grows.

    The published form assumes activations after a ReLU and clamps negative ones; token states are signed.

    Args:
        dim: size of a token state.
        p: initial exponent, from 0.01 to 100; the parameter `exponent` holds it and can be fitted.
        per_dim: one exponent per dimension instead of one for all.
        negative: `signed` takes powers of the magnitude and keeps the sign; `clamp` is the published form.

    `weights` returns each token's share of the power sum, per dimension (equal where every token is zero).
    """

    name = "gem"
    summary = "generalised mean: between mean (p = 1) and max"
    good_for = "a choice between mean and max, by number or by fitting"
    weak_at = "signed activations, for which it was not defined"

    def __init__(
        self,
        dim: int,
        p: float = 3.0,
        per_dim: bool = False,
        negative: Literal["signed", "clamp"] = "signed",
    ) -> None:
        super().__init__(dim)
        if type(p) not in (int, float) or not P_RANGE[0] <= p <= P_RANGE[1]:
            raise PoolingError(f"p={p!r}: must be a number from {P_RANGE[0]} to {P_RANGE[1]}")
        check_choice("per_dim", per_dim, (True, False))
        check_choice("negative", negative, ("signed", "clamp"))
        self.p = float(p)
        self.per_dim = per_dim
        self.negative = negative
        self.exponent = nn.Parameter(torch.full((dim,) if per_dim else (), self.p))

    def _powers(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return signed powers of the scaled states (batch, time, dim), the exponent p and the scale (batch, 1, dim).

        Each dimension is divided by a power of two so that its largest magnitude lies in [1, 2): this is exact,
        and no exponent overflows.
        """
        values = tokens if self.negative == "signed" else tokens.clamp(min=CLAMP)
        largest = values.detach().abs().amax(1, keepdim=True)
        # Not ldexp on the states themselves: its gradient is zero for negative exponents (as of torch 2.13).
        scale = torch.ldexp(torch.ones_like(largest), (torch.frexp(largest).exponent - 1).clamp(-126, 127))
        p = self.exponent.clamp(*P_RANGE).to(tokens.dtype)
        return _times_power(values / scale, p - 1), p, scale

    def _pool(self, tokens: Tensor, mask: Tensor) -> Tensor:
        powers, p, scale = self._powers(tokens)
        mean = weighted_sum(uniform(mask, tokens), powers)
        return _times_power(mean, 1 / p - 1) * scale.squeeze(1)

    def _weights(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return normalize(self._powers(tokens)[0] * mask.unsqueeze(2), mask)


def _times_power(x: Tensor, exponent: Tensor) -> Tensor:
    """Return x |x|^exponent, exactly x at exponent 0; computed by logarithms, as the gradient of `pow` underflows."""
    return x * torch.exp(exponent * x.abs().clamp(min=NEGLIGIBLE).log())
