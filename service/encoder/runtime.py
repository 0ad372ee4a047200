"""The seam between batches of token ids and what computes their states."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


class Runtime(Protocol):
    """An encoder that is loaded. `states` is called from `streams` threads at once."""

    backend: str
    precision: str
    streams: int
    dim: int

    def prepare_thread(self) -> None:
        """Called once by each thread before its first `states`."""

    def states(self, ids: NDArray[np.int64], mask: NDArray[np.bool_]) -> Tensor:
        """Token ids and mask, both (batch, time), padded at the right -> states (batch, time, dim)."""
