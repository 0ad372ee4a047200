"""Confidence intervals by the bootstrap: how far a figure would vary on other data of the same kind (Efron 1979)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from pooling.tasks.task import Indices, Values

SAMPLES: Final = 1000
LEVEL: Final = 0.95


def resample(statistic: Callable[[Indices], Any], n: int, samples: int = SAMPLES, seed: int = 0) -> Values:
    """Compute a statistic on bootstrap samples.

    Args:
        statistic: from the indices of the drawn items, `n` of them with repeats, to a number or an array.
        n: number of items.
        samples: number of bootstrap samples.
        seed: of the draws; equal seeds draw equally, so that the figures of two calls are paired.

    Returns:
        (samples, ...).
    """
    generator = np.random.default_rng(seed)
    return np.array([statistic(generator.integers(0, n, n)) for _ in range(samples)], dtype=np.float64)


def interval(values: Values) -> tuple[Values, Values]:
    """Return the 95 % percentile interval of resampled values (samples, ...): low and high, each (...)."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return low, high


def paired_bootstrap(
    statistic: Callable[[Indices], float], n: int, samples: int = SAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Compute the 95 % interval of a difference between two things measured on the same items.

    If it contains 0, the difference is within noise. The arguments are those of `resample`; `statistic` computes the
    difference.
    """
    low, high = interval(resample(statistic, n, samples, seed))
    return float(low), float(high)


def simultaneous(observed: Values, values: Values) -> tuple[Values, Values]:
    """Compute intervals of several differences that contain *all* true values at once with 95 % confidence.

    The best of eight strategies that are truly equal is often ahead by more than its own 95 % interval. These
    intervals are wider, by the max-t method (Westfall & Young 1993): each extends to a quantile of the largest of
    all deviations, in units of its own standard deviation.

    Args:
        observed: the differences, (differences,).
        values: the same resampled, (samples, differences).
    """
    spread = values.std(axis=0)
    deviations = np.abs(values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    reach = np.quantile(deviations.max(axis=1), LEVEL) if len(observed) else 0.0
    return observed - reach * spread, observed + reach * spread
