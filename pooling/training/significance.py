"""Whether a fitted pooler is better beyond noise than the poolings that need no fitting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pooling.tasks.bootstrap import paired_bootstrap
from pooling.tasks.task import Indices, Outcomes
from pooling.training.fit import Split


@dataclass(frozen=True)
class Verdict:
    """A fitted pooling compared with the best of the others; `low` and `high` are the 95 % interval of its lead."""

    pooling: str
    score: float
    other: str
    other_score: float
    low: float
    high: float

    @property
    def lead(self) -> float:
        """Score of the fitted pooling minus that of the other."""
        return self.score - self.other_score

    @property
    def worth_it(self) -> bool:
        """Whether it is better beyond noise."""
        return self.low > 0


def assess(split: Split, outcomes: Mapping[str, Outcomes], fitted: str) -> Verdict:
    """Compare the fitted pooling with the best of the others on a split, by a paired bootstrap."""
    scores = dict(zip(outcomes, split.scores(np.stack(list(outcomes.values()))), strict=True))
    other = max((name for name in scores if name != fitted), key=scores.__getitem__)
    both = np.stack([outcomes[fitted], outcomes[other]])

    def lead(chosen: Indices) -> float:
        ours, theirs = split.scores(both, chosen)
        return ours - theirs

    low, high = paired_bootstrap(lead, split.task.size)
    return Verdict(fitted, scores[fitted], other, scores[other], low, high)
