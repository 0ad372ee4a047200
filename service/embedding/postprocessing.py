"""From token states to vectors: pooling, head, dimensions and length, at the end of a pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import Tensor

from pooling import masks, pool_spans
from service.arrays import Offsets, Vectors
from service.embedding.windows import Windows
from service.encoder import PostProcess
from service.errors import BrokenModel

if TYPE_CHECKING:
    from service.embedding.embedder import Embedder

_CELLS: Final = 1 << 22
"""Spans times tokens that are compared at once."""


@dataclass(frozen=True)
class ToVectors:
    """From states to vectors. Equal ones share a call, so it compares by value, its embedder by identity."""

    embedder: Embedder
    skip: int
    normalize: bool
    dimensions: int | None

    def __call__(self, states: Tensor, mask: Tensor) -> Sequence[Vectors]:
        """States (rows, time, dim) and mask (rows, time) -> vectors (rows, dimensions)."""
        if self.skip:
            mask = masks.exclude_prefix(mask, self.skip)
        return list(self._complete(self.embedder.pooler(states, mask)))

    def spans(self, plan: Windows, states: Sequence[Vectors], offsets: Offsets, spans: Offsets) -> Vectors:
        """The states of a text's passes -> vectors (spans, dimensions) of its spans of characters (spans, 2)."""
        tokens = torch.from_numpy(plan.join(states)).unsqueeze(0)
        where, characters = torch.from_numpy(offsets).unsqueeze(0), torch.from_numpy(spans).unsqueeze(0)
        step = max(1, _CELLS // len(offsets))
        parts = []
        with torch.inference_mode():
            for first in range(0, len(spans), step):
                some = masks.spans(where, characters[:, first : first + step])
                pooled, _ = pool_spans(self.embedder.pooler, tokens, some)
                parts.append(self._complete(pooled[0]))
        return np.concatenate(parts)

    def _complete(self, pooled: Tensor) -> Vectors:
        """What follows pooling, (rows, output_dim) -> (rows, dimensions)."""
        vectors = self.embedder.head(pooled)
        if self.dimensions is not None:
            vectors = vectors[:, : self.dimensions]
        if self.normalize:
            vectors = torch.nn.functional.normalize(vectors, dim=1)
        if self.dimensions is None and self.embedder.truncate_dim is not None:
            vectors = vectors[:, : self.embedder.truncate_dim]
        if not torch.isfinite(vectors).all():
            raise BrokenModel(self.embedder.name)
        found: Vectors = vectors.numpy()
        return found


@dataclass(frozen=True)
class Unprompted:
    """Leave the prompt's tokens out of the mask that another post-processing step is given."""

    post_process: PostProcess
    skip: int

    def __call__(self, states: Tensor, mask: Tensor) -> Sequence[Any]:
        """As `post_process` does."""
        return self.post_process(states, masks.exclude_prefix(mask, self.skip) if self.skip else mask)


def all_states(states: Tensor, mask: Tensor) -> Sequence[Vectors]:
    """The states themselves, padding included."""
    found: Vectors = states.float().numpy()
    return list(found)
