"""How much it takes to pool a text and to weigh its tokens, where that grows faster than the text."""

from __future__ import annotations

from typing import Final, cast

import torch

from pooling.base import Pooler
from pooling.compose import Concatenation, Segments, Sequence

_STATE: Final = 3
"""Of each number of a state that is copied to its segment, in numbers that are added up in the same time."""
_SEGMENT: Final = 6_000
"""What one segment costs by itself, in the same."""


def work(pooler: Pooler, tokens: int) -> int:
    """Estimate the numbers that a strategy and its weights read and write, for a text of so many tokens that count.

    One stage before a strategy makes a mask over all tokens for each of its segments, and where a max comes in
    anywhere from it on, a weight for each dimension too. A strategy without stages counts for nothing.
    """
    if isinstance(pooler, Concatenation):
        return sum(work(part, tokens) for part in pooler.poolers)
    if not isinstance(pooler, Sequence):
        return 0
    stages, last = pooler.components[:-1], cast(Pooler, pooler.components[-1])
    lengths = [tokens]
    for stage in stages:
        lengths.append(stage.count(lengths[-1]) if isinstance(stage, Segments) else lengths[-1])
    total = work(last, lengths[-1]) + lengths[-1] * last.output_dim
    by_dimension = _weighs_dimensions(last)
    for stage, before, after in reversed(list(zip(stages, lengths, lengths[1:], strict=False))):
        if not isinstance(stage, Segments):
            total += before * stage.dim
            continue
        by_dimension = by_dimension or stage.by == "max"
        weights = before * last.output_dim if by_dimension else 0
        total += after * (2 * before + _SEGMENT + _STATE * stage.width(before) * stage.dim + weights)
    return total


def _weighs_dimensions(pooler: Pooler) -> bool:
    """Return whether each dimension has weights of its own."""
    with torch.no_grad():
        one = pooler.weights(torch.zeros(1, 1, pooler.dim, dtype=torch.float64), torch.ones(1, 1, dtype=torch.bool))
    return one.dim() == 3
