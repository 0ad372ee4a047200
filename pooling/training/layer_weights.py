"""A pooling over a weighted mean of layers, as a pooler whose parameters are the weights of the layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from pooling.base import Pooler


class LayerWeights(Pooler):
    """A pooling over the mean of the states of all layers, by weights that are divided by their sum.

    So are they in sentence-transformers' `WeightedLayerPooling`: without a softmax, and negative ones are none less.
    Its token states are those of each layer side by side, (batch, time, layers * dim), from the embeddings on.

    Args:
        called: its name in reports.
        pooler: the pooling over the mean.
        weights: of each layer, to start from; they must not add up to zero.
    """

    name: ClassVar[str] = "layer_weights"
    summary: ClassVar[str] = "a pooling over a weighted mean of layers"
    good_for: ClassVar[str] = "encoders whose last layer is not the best"
    weak_at: ClassVar[str] = "memory: the states of all layers are needed"

    def __init__(self, called: str, pooler: Pooler, weights: Sequence[float]) -> None:
        super().__init__(len(weights) * pooler.dim)
        self.pooler = pooler
        self.layer_weights = nn.Parameter(torch.tensor(weights))
        self._called = called

    @property
    def spec(self) -> str:
        """What it is called, since it is saved as a pooling and layers, each by itself."""
        return self._called

    @property
    def output_dim(self) -> int:
        """Size of the vector: that of the pooling."""
        return self.pooler.output_dim

    def _mixed(self, tokens: Tensor) -> Tensor:
        """Mix (batch, time, layers * dim) to (batch, time, dim)."""
        weights = self.layer_weights.to(tokens.dtype)
        by_layer = tokens.reshape(*tokens.shape[:2], len(weights), -1)
        return torch.einsum("btld,l->btd", by_layer, weights / weights.sum())

    def _pool(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.pooler(self._mixed(tokens), mask)

    def _weights(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.pooler.weights(self._mixed(tokens), mask)
