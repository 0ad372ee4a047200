"""How vectors are compared, by name: the higher, the nearer. Float32, by the steps of sentence-transformers."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Cosine:
    """The cosine of two vectors."""

    def prepared(self, vectors: NDArray[Any]) -> Tensor:
        """Return vectors (n, dim) as the other methods take them."""
        return torch.nn.functional.normalize(torch.from_numpy(np.array(vectors)), dim=1)

    def matrix(self, left: Tensor, right: Tensor) -> Tensor:
        """Compare each of `left` (m, dim) with each of `right` (n, dim), (m, n)."""
        return left @ right.T

    def pairs(self, left: Tensor, right: Tensor) -> Tensor:
        """Compare each of `left` with the one of `right` in its place, (n, dim) both, (n,)."""
        return (left * right).sum(dim=1)


class Dot(Cosine):
    """The inner product of two vectors."""

    def prepared(self, vectors: NDArray[Any]) -> Tensor:
        """Return the vectors as they are."""
        return torch.from_numpy(np.array(vectors))


class Euclidean(Dot):
    """The distance of two vectors, negated."""

    def matrix(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the negated distances, (m, n); not by way of inner products, which would lose small ones."""
        distances: Tensor = torch.cdist(left, right, compute_mode="donot_use_mm_for_euclid_dist")
        return -distances

    def pairs(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the negated distances, (n,)."""
        distances: Tensor = torch.linalg.vector_norm(left - right, dim=1)
        return -distances


COSINE: Final = Cosine()
COMPARISONS: Final = {"cosine": COSINE, "dot": Dot(), "euclidean": Euclidean()}
