"""Strategies against each other: scores with intervals, and which differences are more than noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pooling.tasks.bootstrap import SAMPLES, interval, resampled, simultaneous
from pooling.tasks.task import Indices, Outcomes, Task

Values = NDArray[np.float64]
Verdict = Literal["better", "worse", "within noise"]


@dataclass(frozen=True)
class Difference:
    """Of two strategies' scores on the metric that decides, with its interval."""

    value: float
    low: float
    high: float

    @property
    def verdict(self) -> Verdict:
        """What may be said of it."""
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
        resamples: the same on data drawn anew, (samples, strategies, metrics).

    """

    strategies: tuple[str, ...]
    metrics: tuple[str, ...]
    scores: Values
    resamples: Values

    def score(self, strategy: str) -> float:
        """On the metric that decides."""
        return float(self.scores[self.strategies.index(strategy), 0])

    def intervals(self) -> tuple[Values, Values]:
        """95 % of each score: low and high, (strategies, metrics) both."""
        return interval(self.resamples)

    def against(self, reference: str) -> dict[str, Difference]:
        """Every strategy's difference to one, paired; see `simultaneous` for the intervals."""
        place = self.strategies.index(reference)
        observed = self.scores[:, 0] - self.scores[place, 0]
        low, high = simultaneous(observed, self.resamples[:, :, 0] - self.resamples[:, [place], 0])
        rows = zip(self.strategies, observed.tolist(), low.tolist(), high.tolist(), strict=True)
        return {strategy: Difference(*figures) for strategy, *figures in rows}


def compare(task: Task, strategies: Sequence[str], outcomes: Outcomes, samples: int = SAMPLES) -> Comparison:
    """Score strategies on a task.

    Args:
        task: the data.
        strategies: their names.
        outcomes: what each makes of every item, (strategies, size, ...).
        samples: of the bootstrap.

    """

    def scores(chosen: Indices) -> Values:
        return task.scores(outcomes[:, chosen], chosen)

    return Comparison(
        tuple(strategies),
        task.metrics,
        scores(np.arange(task.size)),
        resampled(scores, task.size, samples),
    )
