"""Train, dev and test: a part held out for dev, what two splits share, and how small is too small."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from pooling.data import Data, DataError, PositivePairs, Retrieval, ScoredPairs

FEWEST_EXAMPLES: Final = 50
"""To fit to: below, what is fitted says more of the examples than of the encoder."""
FEWEST_ITEMS: Final = 20
"""To judge by: pairs, or queries of retrieval."""
HELD_OUT: Final = 0.1


def hold_out(data: Data, seed: int = 0) -> tuple[Data, Data]:
    """Split off a tenth for dev, at least `FEWEST_ITEMS`: pairs, or queries with all that is relevant to them."""
    units = _units(data)
    size = max(round(HELD_OUT * len(units)), FEWEST_ITEMS)
    order = np.random.default_rng(seed).permutation(len(units))
    dev, train = np.sort(order[:size]), np.sort(order[size:])
    return _some(data, train.tolist()), _some(data, dev.tolist())


def shared(left: Data, right: Data) -> int:
    """How many pairs, in either order, or queries of `right` are in `left` too."""
    known = set(_units(left))
    return sum(unit in known for unit in _units(right))


def check_sizes(examples: int, items: int, dev: str) -> None:
    """Raises `DataError` where there is too little to fit to, or to judge by; `dev` names the split."""
    if examples < FEWEST_EXAMPLES:
        raise DataError(f"there are {examples} training pairs, and fitting needs at least {FEWEST_EXAMPLES}")
    if items < FEWEST_ITEMS:
        raise DataError(f"{dev} has {items} pairs or queries, and judging needs at least {FEWEST_ITEMS}")


def _units(data: Data) -> list[frozenset[str]]:
    match data:
        case ScoredPairs():
            return [frozenset(pair) for pair in zip(data.first, data.second, strict=True)]
        case PositivePairs():
            return [frozenset(pair) for pair in zip(data.anchors, data.positives, strict=True)]
        case Retrieval():
            return [frozenset([data.queries[query]]) for query in data.relevance]
    return [frozenset([text]) for text in data.items]


def _some(data: Data, chosen: Sequence[int]) -> Data:
    match data:
        case ScoredPairs(first, second, scores):
            return ScoredPairs(_take(first, chosen), _take(second, chosen), _take(scores, chosen))
        case PositivePairs(anchors, positives):
            return PositivePairs(_take(anchors, chosen), _take(positives, chosen))
        case Retrieval():
            queries = list(data.relevance)
            return replace(data, relevance={queries[place]: data.relevance[queries[place]] for place in chosen})
    return replace(data, items=_take(data.items, chosen), labels=_take(data.labels, chosen))


def _take[T](values: Sequence[T], chosen: Sequence[int]) -> tuple[T, ...]:
    return tuple(values[place] for place in chosen)
