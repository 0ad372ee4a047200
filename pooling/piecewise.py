"""Pooling each part of a text by itself, side by side."""

from __future__ import annotations

from typing import Final, Literal

import torch
from torch import Tensor

from pooling import masks
from pooling.base import Pooler, check_choice, check_count
from pooling.fixed import Max, Mean
from pooling.weights import expand

MAX_PIECES: Final = 64


class Piecewise(Pooler):
    """The vectors of n parts of a text, one after the other (Zeng et al. 2015): n * dim dimensions.

    The parts are those of PyTorch's adaptive pooling: of a text of fewer than n tokens, some are in several parts.
    Several joined by `+` are a pyramid (He et al. 2014), as in `max + piecewise(n=2) + piecewise(n=4)`.

    Args:
        dim: size of a token state.
        n: number of parts.
        by: how each is pooled.
    """

    name = "piecewise"
    summary = "each nth part of the text by itself, one after the other"
    good_for = "texts whose order matters, such as title, body and end"
    weak_at = "index size: n times the dimensions; texts alike in other places"

    def __init__(self, dim: int, n: int = 3, by: Literal["max", "mean"] = "max") -> None:
        super().__init__(dim)
        check_count("n", n, MAX_PIECES)
        check_choice("by", by, ("max", "mean"))
        self.n = n
        self.by = by
        self._pooler: Pooler = Max(dim) if by == "max" else Mean(dim)

    @property
    def output_dim(self) -> int:
        """Size of the vector: n * dim."""
        return self.n * self.dim

    @property
    def linear(self) -> bool:
        """True: each part is a weighted sum of its tokens."""
        return True

    def _pool(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return torch.cat([self._pooler._pool(tokens, part) for part in masks.adaptive(mask, self.n).unbind(1)], dim=1)

    def _weights(self, tokens: Tensor, mask: Tensor) -> Tensor:
        parts = masks.adaptive(mask, self.n).unbind(1)
        return torch.cat([expand(self._pooler._weights(tokens, part), self.dim) for part in parts], dim=2)
