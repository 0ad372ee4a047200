"""From a row over the vocabulary to the weights that are in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True)
class SparseVector:
    """Token ids in ascending order, and the weight of each, both (active,). All others weigh 0."""

    indices: NDArray[np.int64]
    values: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ToWeights:
    """Takes rows apart at the end of a pass, so that none is kept whole.

    Args:
        most: how many of a row's weights are kept, the largest ones; None for all.
    """

    most: int | None = None

    def __call__(self, rows: Tensor, mask: Tensor, ids: Tensor) -> Sequence[SparseVector]:
        """Rows (texts, 1, vocabulary) -> the weights of each. One that is no number is kept, to be noticed."""
        return [self._weights(row) for row in rows[:, 0].float().numpy()]

    def _weights(self, row: NDArray[np.float32]) -> SparseVector:
        indices = np.flatnonzero(~(row <= 0))
        if self.most is not None and len(indices) > self.most:
            largest = np.argpartition(-row[indices], self.most - 1)[: self.most]
            indices = np.sort(indices[largest])
        return SparseVector(indices, row[indices])
