"""How far a figure would move on other data of the same kind: the bootstrap (Efron 1979)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
Values = NDArray[np.float64]

SAMPLES: Final = 1000
LEVEL: Final = 0.95


def resampled(statistic: Callable[[Indices], Any], n: int, samples: int = SAMPLES, seed: int = 0) -> Values:
    """A statistic on data sets drawn anew from the one at hand.

    Args:
        statistic: from the places of the chosen items, `n` of them with repeats, to a number or an array.
        n: how many items there are.
        samples: how many data sets are drawn.
        seed: of the draws; equal seeds draw equally, so that figures of two calls are paired.

    Returns:
        (samples, ...).

    """
    generator = np.random.default_rng(seed)
    return np.array([statistic(generator.integers(0, n, n)) for _ in range(samples)], dtype=np.float64)


def interval(values: Values) -> tuple[Values, Values]:
    """The middle 95 % of resampled values (samples, ...), by their percentiles: low and high, each (...)."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return low, high


def paired_bootstrap(
    statistic: Callable[[Indices], float], n: int, samples: int = SAMPLES, seed: int = 0
) -> tuple[float, float]:
    """The 95 % interval of a difference between two things measured on the same items.

    Where it holds 0, the difference is within noise.

    Args:
        statistic: from the places of the chosen items, `n` of them with repeats, to the difference.
        n: how many items there are.
        samples: how many data sets are drawn.
        seed: of the draws.

    """
    low, high = interval(resampled(statistic, n, samples, seed))
    return float(low), float(high)


def simultaneous(observed: Values, values: Values) -> tuple[Values, Values]:
    """Intervals of several differences, of which with 95 % certainty *all* hold the truth.

    The best of eight strategies that are equal in truth is often ahead by more than its own 95 % interval. These
    are as much wider as the largest of all deviations asks for, in units of each one's own spread (the max-t
    method; Westfall & Young 1993).

    Args:
        observed: the differences, (differences,).
        values: the same resampled, (samples, differences).

    """
    spread = values.std(axis=0)
    deviations = np.abs(values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    reach = np.quantile(deviations.max(axis=1), LEVEL) if len(observed) else 0.0
    return observed - reach * spread, observed + reach * spread
