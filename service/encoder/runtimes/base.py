"""The seam between batches of token ids and what computes their states."""

from __future__ import annotations

import os
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


class Runtime(Protocol):
    """An encoder that is loaded.

    `streams` is how many batches it computes best at once. One more may come beside them, from a thread of its
    own, for a small request that should not wait for a stream.
    """

    backend: str
    precision: str
    streams: int
    dim: int

    def prepare_thread(self) -> None:
        """Called once by each thread before its first `states`."""

    def states(self, ids: NDArray[np.int64], mask: NDArray[np.bool_], *, wide: bool = False) -> Tensor:
        """Token ids and mask, both (batch, time), padded at the right -> states (batch, time, dim).

        A `wide` pass takes all cores, so that its few tokens are soon done; any other takes its stream's share.
        """


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
