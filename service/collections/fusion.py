"""Several rankings as one."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)

_CONSTANT: Final = 60
"""What is added to each rank, so that the first ones do not count for all: the paper's choice."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one ranking gave a hit: its rank from 1, and its score there."""

    rank: int
    score: float


@dataclass(frozen=True, slots=True)
class Fused(Generic[Item]):
    """An item with the sum of what its ranks give, and its part in each ranking that has it, by name."""

    item: Item
    score: float
    parts: Mapping[str, Part]


def fuse(
    rankings: Mapping[str, Sequence[tuple[Item, float]]], weights: Mapping[str, float] | None = None
) -> list[Fused[Item]]:
    """Fuse rankings of (item, score), the best first, into one, by reciprocal ranks.

    An item has the sum of weight / (60 + rank) over the rankings that have it (Cormack, Clarke and Büttcher, 2009,
    "Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning Methods"). Equal sums keep the order in
    which items are met: rank by rank, and rankings in order. A ranking without a weight has the weight 1, and what
    has a sum of 0 is left out.
    """
    weights = weights or {}
    parts: dict[Item, dict[str, Part]] = {}
    for rank in range(1, max(map(len, rankings.values()), default=0) + 1):
        for name, ranking in rankings.items():
            if rank <= len(ranking):
                item, score = ranking[rank - 1]
                parts.setdefault(item, {})[name] = Part(rank, score)
    fused = [
        Fused(
            item,
            sum(weights.get(name, 1.0) / (_CONSTANT + part.rank) for name, part in of.items()),
            {name: of[name] for name in rankings if name in of},
        )
        for item, of in parts.items()
    ]
    return sorted((each for each in fused if each.score > 0), key=lambda each: -each.score)
