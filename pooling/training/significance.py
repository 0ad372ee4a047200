"""Whether a fitted pooler is worth having: beside the poolings that need no fitting, on the same states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pooling.tasks.bootstrap import paired_bootstrap
from pooling.training.fit import Split
from pooling.training.states import Encode
from pooling.training.tasks import Outcomes


@dataclass(frozen=True)
class Verdict:
    """A fitted pooling beside the best of the others: its lead, and the 95 % interval of that."""

    pooling: str
    score: float
    other: str
    other_score: float
    low: float
    high: float

    @property
    def lead(self) -> float:
        """By how much the fitted one is better."""
        return self.score - self.other_score

    @property
    def worth_it(self) -> bool:
        """Whether it is better beyond noise."""
        return self.low > 0


def outcomes(split: Split, encoders: Mapping[str, Encode]) -> dict[str, Outcomes]:
    """What each pooling comes to on a split."""
    return {name: split.task.outcomes(split.states.pooled(encode)) for name, encode in encoders.items()}


def judge(split: Split, found: Mapping[str, Outcomes], fitted: str) -> Verdict:
    """Compare the fitted pooling to the best of the others on that split, by a paired bootstrap."""
    task = split.task
    scores = {name: task.score(outcomes) for name, outcomes in found.items()}
    other = max((name for name in scores if name != fitted), key=scores.__getitem__)
    ours, theirs = found[fitted], found[other]
    low, high = paired_bootstrap(lambda items: task.score(ours, items) - task.score(theirs, items), task.items)
    return Verdict(fitted, scores[fitted], other, scores[other], low, high)
