"""From a row over the vocabulary to the weights that are in it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

MOST_WEIGHTS: Final = 4_194_304
"""Weights that are made at once. A model that was not trained to give few gives a text thousands."""


@dataclass(frozen=True, slots=True)
class SparseVector:
    """Token ids in ascending order, and the weight of each, both (active,). All others weigh 0."""

    indices: NDArray[np.int64]
    values: NDArray[np.float32]


class ToWeights:
    """Takes the rows of one request apart at the end of each pass, so that none is kept whole.

    Args:
        most_active: how many of a row's weights are kept, the largest ones; None for all.
        most: how many weights are kept of all rows. Once there are more, rows are only counted.
    """

    def __init__(self, most_active: int | None, most: int) -> None:
        self._most_active = most_active
        self._most = most
        self._lock = threading.Lock()
        self.count = 0
        """Weights above 0 so far, of all rows."""

    def __call__(self, rows: Tensor, mask: Tensor, ids: Tensor) -> Sequence[SparseVector]:
        """Rows (texts, 1, vocabulary) -> the weights of each. One that is no number is kept, to be noticed."""
        return [self._weights(row) for row in rows[:, 0].float().numpy()]

    def _weights(self, row: NDArray[np.float32]) -> SparseVector:
        indices = np.flatnonzero(~(row <= 0))
        most = self._most_active
        if most is not None and len(indices) > most:
            indices = np.sort(indices[np.argpartition(row[indices], -most)[-most:]])  # NaN counts as the largest
        with self._lock:
            self.count += len(indices)
            kept = indices if self.count <= self._most else indices[:0]
        return SparseVector(kept, row[kept])
