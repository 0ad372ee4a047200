"""Compares strategies on a task: scores with intervals, and which differences exceed noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pooling.tasks.bootstrap import SAMPLES, interval, resample, simultaneous
from pooling.tasks.task import Indices, Outcomes, Task, Values

Verdict = Literal["better", "worse", "within noise"]


@dataclass(frozen=True)
class Score:
    """A score and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference(Score):
    """Difference of two strategies' scores on the deciding metric, with its interval."""

    @property
    def verdict(self) -> Verdict:
        """Which side of 0 its interval lies on."""
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "within noise"


@dataclass(frozen=True)
class Comparison:
    """Several strategies on one data set.

    Args:
        strategies: their names.
        metrics: their names; the first decides.
        scores: (strategies, metrics).
        resamples: scores on bootstrap samples, (samples, strategies, metrics).
    """

    strategies: tuple[str, ...]
    metrics: tuple[str, ...]
    scores: Values
    resamples: Values

    def score(self, strategy: str) -> float:
        """Return the score of a strategy on the deciding metric."""
        return float(self.scores[self.strategies.index(strategy), 0])

    def intervals(self) -> tuple[Values, Values]:
        """Return the 95 % interval of each score: low and high, both (strategies, metrics)."""
        return interval(self.resamples)

    def against(self, reference: str) -> dict[str, Difference]:
        """Return the paired difference of every strategy to one; see `simultaneous` for the intervals."""
        index = self.strategies.index(reference)
        observed = self.scores[:, 0] - self.scores[index, 0]
        low, high = simultaneous(observed, self.resamples[:, :, 0] - self.resamples[:, [index], 0])
        rows = zip(self.strategies, observed.tolist(), low.tolist(), high.tolist(), strict=True)
        return {strategy: Difference(*figures) for strategy, *figures in rows}


def compare(
    task: Task,
    strategies: Sequence[str],
    outcomes: Outcomes,
    samples: int = SAMPLES,
    advance: Callable[[int], object] = lambda _: None,
) -> Comparison:
    """Score strategies on a task.

    Args:
        task: the data.
        strategies: their names.
        outcomes: of each strategy for each item, (strategies, size, ...).
        samples: number of bootstrap samples.
        advance: called with 0 before each of them; what it raises ends the comparison.
    """

    def scores(chosen: Indices) -> Values:
        advance(0)
        return task.score(outcomes[:, chosen], chosen)

    return Comparison(
        tuple(strategies),
        task.metrics,
        scores(np.arange(task.size)),
        resample(scores, task.size, samples),
    )
