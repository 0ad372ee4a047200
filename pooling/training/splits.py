"""Train, dev and test: read from files, a part held out where there is no dev, and what they share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

import numpy as np

from pooling.data import Data, DataError, PositivePairs, Retrieval, ScoredPairs, read, split_file
from pooling.training.tasks import Task, task

FEWEST_EXAMPLES: Final = 50
"""To fit to: below, what is fitted says more of the examples than of the encoder."""
FEWEST_ITEMS: Final = 20
"""To judge by: pairs, or queries of retrieval."""
HELD_OUT: Final = 0.1

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Splits:
    """What to fit to, what to choose by, and what to judge by, where there is such data; notes are sentences."""

    train: Task
    dev: Task
    test: Task | None
    notes: tuple[str, ...]


def read_splits(train: Path, dev: Path | None = None, test: Path | None = None) -> Splits:
    """Read the splits, each a file, or a folder that has one of that name.

    Where `train` is a folder, dev and test are looked for in it too. Without a dev split, a tenth of train is held
    out for it.

    Raises:
        DataError: a file cannot be used, says nothing, or holds too little.

    """
    dev, test = dev or _beside(train, "dev"), test or _beside(train, "test")
    notes: list[str] = []
    fitted = read(train, "train")
    if dev is None:
        check = _task(train, fitted, judged_only=True)  # what is wrong with it is said of the whole
        _check(train, check.examples, FEWEST_EXAMPLES + FEWEST_ITEMS, "pairs to fit to and hold out from")
        whole = fitted
        fitted, chosen = hold_out(whole)
        notes.append(
            f"There is no dev split: {len(_units(chosen))} of the {len(_units(whole))} pairs or queries of {train} "
            "are held out for it."
        )
    else:
        chosen = read(dev, "dev")
        notes += _overlap(fitted, "dev", chosen)
    splits = {"train": _task(train, fitted, judged_only=True), "dev": _task(dev or train, chosen)}
    _check(train, splits["train"].examples, FEWEST_EXAMPLES, "pairs to fit to")
    _check(dev or train, splits["dev"].items, FEWEST_ITEMS, "pairs or queries to choose by")
    if test is None:
        return Splits(splits["train"], splits["dev"], None, tuple(notes))
    last = read(test, "test")
    notes += _overlap(fitted, "test", last)
    judged = _task(test, last)
    _check(test, judged.items, FEWEST_ITEMS, "pairs or queries to judge by")
    return Splits(splits["train"], splits["dev"], judged, tuple(notes))


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


def _overlap(fitted: Data, split: str, data: Data) -> Iterator[str]:
    if same := shared(fitted, data):
        yield (
            f"{same} of the {len(_units(data))} pairs or queries of the {split} split are in train too, which "
            "flatters what is fitted."
        )


def _beside(folder: Path, split: str) -> Path | None:
    """The folder, where it has such a split."""
    if not folder.is_dir():
        return None
    if (folder / "corpus.jsonl").exists():
        return folder if (folder / "qrels" / f"{split}.tsv").exists() else None
    try:
        return split_file(folder, split)
    except DataError:
        return None


def _task(path: Path, data: Data, *, judged_only: bool = False) -> Task:
    try:
        return task(data, judged_only=judged_only)
    except DataError as error:
        raise DataError(f"{path}: {error}.") from None


def _check(path: Path, found: int, fewest: int, what: str) -> None:
    if found < fewest:
        raise DataError(f"{path}: has {found} {what}, and at least {fewest} are needed.")


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


def _take(values: Sequence[_Value], chosen: Sequence[int]) -> tuple[_Value, ...]:
    return tuple(values[place] for place in chosen)
