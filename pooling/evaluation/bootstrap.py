"""How far a difference between two poolings, measured on the same data, could be chance."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

_INTERVAL = (2.5, 97.5)


def paired_bootstrap(
    statistic: Callable[[NDArray[np.int64]], float], n: int, samples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """A 95 % interval of a difference, by the percentile bootstrap (Efron & Tibshirani 1993).

    Args:
        statistic: the difference over the items at these indices, of which some repeat; both sides of it are
            computed over the same items.
        n: number of items.
        samples: how often they are drawn anew.
        seed: of the draws.

    Returns:
        Its lower and upper end. Where 0 lies outside, the difference is beyond noise.

    """
    rng = np.random.default_rng(seed)
    values = [statistic(rng.integers(0, n, n)) for _ in range(samples)]
    low, high = np.percentile(values, _INTERVAL)
    return float(low), float(high)
