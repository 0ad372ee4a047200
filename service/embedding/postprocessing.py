"""Post-processing at the end of a pass: token states to vectors, by pooling, head, truncation and normalisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize as unit_length

from pooling import Mean, masks, maxsim
from service.arrays import Floats, Vectors
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

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        return self.recipe.dim if self.dimensions is None else self.dimensions

    def __call__(self, states: Tensor, mask: Tensor, ids: Tensor) -> Sequence[Vectors]:
        """States (rows, time, dim), mask and ids (rows, time) -> vectors (rows, dimensions)."""
        return list(self.complete(self.recipe.pooler(states, self.recipe.pooled(mask, ids))))

    @property
    def of_means(self) -> Callable[[Tensor], Sequence[Vectors]] | None:
        """From the means of states (rows, dim) to vectors (rows, dimensions), where these are made of no more."""
        return self._of_means if type(self.recipe.pooler) is Mean else None

    def _of_means(self, means: Tensor) -> Sequence[Vectors]:
        return list(self.complete(means))

    def complete(self, pooled: Tensor) -> Vectors:
        """Turn pooled vectors (rows, output_dim) into vectors (rows, dimensions).

        Raises:
            BrokenModel: a vector is not finite.
        """
        vectors = complete(self.recipe, pooled, normalize=self.normalize, dimensions=self.dimensions)
        found: Vectors = vectors.numpy()
        if not np.isfinite(found).all():  # which NumPy is sooner done with, over few vectors
            raise BrokenModel(self.recipe.name)
        return found


@dataclass(frozen=True)
class ToEachVector:
    """Turn token states into the vectors of several poolings, of the states of the same layers."""

    poolings: tuple[ToVectors, ...]

    def __call__(self, states: Tensor, mask: Tensor, ids: Tensor) -> Sequence[tuple[Vectors, ...]]:
        """States (rows, time, dim), mask and ids (rows, time) -> for each row a vector (dimensions,) a pooling."""
        return list(zip(*(pooling(states, mask, ids) for pooling in self.poolings), strict=True))


@dataclass(frozen=True)
class WithoutPrompt:
    """Leave the first `skip` tokens of each text out of the mask that another post-processing step is given."""

    post_process: PostProcess
    skip: int

    @property
    def of_means(self) -> Callable[[Tensor], Sequence[Any]] | None:
        """As of `post_process`, where no token is left out."""
        return None if self.skip else getattr(self.post_process, "of_means", None)

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


def framed(mask: Tensor, front: int, back: int) -> Tensor:
    """Return which tokens are those of a text (rows, time), with `front` ones before it and `back` ones after it."""
    return masks.exclude_suffix(masks.exclude_prefix(mask, front), back)


@dataclass(frozen=True, eq=False)
class ToMaxSim:
    """Compare token states with those of queries, so that no state leaves the encoder's threads.

    Args:
        model: the model's name, for errors.
        queries: their states (queries, time, dim).
        counts: which of those count, (queries, time).
        front: how many tokens before a text do not count.
        back: how many after it.
    """

    model: str
    queries: Tensor
    counts: Tensor
    front: int
    back: int

    def __call__(self, states: Tensor, mask: Tensor, ids: Tensor) -> Sequence[Floats]:
        """States (rows, time, dim), mask and ids (rows, time) -> scores (queries,) of each row; see `pooling.maxsim`.

        Raises:
            BrokenModel: a score is not finite.
        """
        scores = maxsim(self.queries, self.counts, states, framed(mask, self.front, self.back))
        if not torch.isfinite(scores).all():
            raise BrokenModel(self.model)
        return list(scores.T.numpy())
