"""Post-processing at the end of a pass: token states to vectors, by pooling, head, truncation and normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize as unit_length

from pooling import masks
from service.arrays import Vectors
from service.embedding.recipe import Recipe
from service.encoder import PostProcess
from service.errors import BrokenModel


def complete(
    recipe: Recipe, pooled: Tensor, *, normalize: bool | None = None, dimensions: int | None = None
) -> Tensor:
    """Turn pooled vectors into the vectors that are served: what follows pooling, for serving and training alike.

    Args:
        recipe: what follows pooling.
        pooled: vectors (rows, pooler's output_dim).
        normalize: whether vectors are normalised; as in the recipe by default.
        dimensions: leading dimensions kept before normalising; by default those of the recipe, kept after it.

    Returns:
        (rows, dimensions), differentiable.
    """
    vectors: Tensor = recipe.head(pooled)[:, :dimensions]
    if recipe.normalize if normalize is None else normalize:
        vectors = unit_length(vectors, dim=1)
    return vectors[:, : recipe.truncate_dim] if dimensions is None else vectors


@dataclass(frozen=True)
class ToVectors:
    """Turn token states into vectors. Requests whose `ToVectors` are equal share a call.

    Args:
        recipe: how.
        normalize: as for `complete`.
        dimensions: as for `complete`.
    """

    recipe: Recipe
    normalize: bool | None = None
    dimensions: int | None = None

    def __call__(self, states: Tensor, mask: Tensor, ids: Tensor) -> Sequence[Vectors]:
        """States (rows, time, dim), mask and ids (rows, time) -> vectors (rows, dimensions)."""
        return list(self.complete(self.recipe.pooler(states, self.recipe.pooled(mask, ids))))

    def complete(self, pooled: Tensor) -> Vectors:
        """Turn pooled vectors (rows, output_dim) into vectors (rows, dimensions).

        Raises:
            BrokenModel: a vector is not finite.
        """
        vectors = complete(self.recipe, pooled, normalize=self.normalize, dimensions=self.dimensions)
        if not torch.isfinite(vectors).all():
            raise BrokenModel(self.recipe.name)
        return vectors.numpy()


@dataclass(frozen=True)
class WithoutPrompt:
    """Leave the first `skip` tokens of each text out of the mask that another post-processing step is given."""

    post_process: PostProcess
    skip: int

    def __call__(self, states: Tensor, mask: Tensor, ids: Tensor) -> Sequence[Any]:
        """As `post_process` does."""
        return self.post_process(states, masks.exclude_prefix(mask, self.skip) if self.skip else mask, ids)


@dataclass(frozen=True)
class ToStates:
    """Return the states themselves, padding included.

    Args:
        model: the model's name, for errors.
    """

    model: str

    def __call__(self, states: Tensor, mask: Tensor, ids: Tensor) -> Sequence[Vectors]:
        """States (rows, time, dim), mask and ids (rows, time) -> for each row its states (time, dim).

        Raises:
            BrokenModel: a state is not finite.
        """
        if not torch.isfinite(states[mask]).all():
            raise BrokenModel(self.model)
        return list(states.float().numpy())
