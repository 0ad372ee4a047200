"""Train, dev and test: read from files, a part of train held out for those that are missing, and what they share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

import numpy as np

from pooling.tasks.data import Data, DataError, PositivePairs, Retrieval, ScoredPairs, read, split_file
from pooling.training.tasks import Task, task

FEWEST_EXAMPLES: Final = 50
"""To fit to: below, what is fitted says more of the examples than of the encoder."""
FEWEST_ITEMS: Final = 20
"""To judge by: pairs, or queries of retrieval."""
HELD_OUT: Final = 0.1

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Splits:
    """What to fit to, what to choose by, and what to judge by; notes are sentences for the user."""

    train: Task
    dev: Task
    test: Task
    notes: tuple[str, ...]


def read_splits(train: Path, dev: Path | None = None, test: Path | None = None) -> Splits:
    """Read the splits, each a file, or a folder that has one of that name.

    Where `train` is a folder, dev and test are looked for in it too. For one that there is not, a tenth of train is
    held out: what judges a pooler has had no part in fitting or choosing it.

    Raises:
        DataError: a file cannot be used, says nothing, or holds too little.

    """
    paths = {"dev": dev or _beside(train, "dev"), "test": test or _beside(train, "test")}
    train = _beside(train, "train") or train
    missing = [split for split, path in paths.items() if path is None]
    left = read(train, "train")
    _check(train, _task(train, left, judged_only=True).examples, missing, FEWEST_ITEMS * len(missing))
    data = {split: read(path, split) for split, path in paths.items() if path}
    whole = len(_units(left))
    size = max(round(HELD_OUT * whole), FEWEST_ITEMS)
    notes = []
    for split in missing:
        left, data[split] = hold_out(left, size)
        notes.append(
            f"There is no {split} split: {size} of the {whole} pairs or queries of {train} are held out for it."
        )
    data["train"] = left
    for one, other in (("train", "dev"), ("train", "test"), ("dev", "test")):
        notes += _overlap(one, data[one], other, data[other])
    fitted = _task(train, left, judged_only=True)
    _check(train, fitted.examples, missing)
    chosen, judged = (_judged(path or train, data[split]) for split, path in paths.items())
    if chosen.metric != judged.metric:
        raise DataError(
            f"{paths['dev'] or train} is judged by {chosen.metric}, {paths['test'] or train} by {judged.metric}; dev "
            "and test must be data of the same kind."
        )
    return Splits(fitted, chosen, judged, tuple(notes))


def hold_out(data: Data, size: int, seed: int = 0) -> tuple[Data, Data]:
    """Split off `size` pairs, or queries with all that is relevant to them: what is left, and those."""
    order = np.random.default_rng(seed).permutation(len(_units(data)))
    return _some(data, np.sort(order[size:]).tolist()), _some(data, np.sort(order[:size]).tolist())


def shared(left: Data, right: Data) -> int:
    """How many pairs, in either order, or queries of `right` are in `left` too."""
    known = set(_units(left))
    return sum(unit in known for unit in _units(right))


def _overlap(one: str, data: Data, other: str, more: Data) -> Iterator[str]:
    if same := shared(data, more):
        yield (
            f"{same} of the {len(_units(more))} pairs or queries of the {other} split are in {one} too, which "
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


def _check(path: Path, examples: int, missing: Sequence[str], held_out: int = 0) -> None:
    if examples < (fewest := FEWEST_EXAMPLES + held_out):
        verb = "is" if len(missing) == 1 else "are"
        where = f" where {' and '.join(missing)} {verb} held out from them" if missing else ""
        raise DataError(f"{path}: has {examples} pairs to fit to, and at least {fewest} are needed{where}.")


def _judged(path: Path, data: Data) -> Task:
    found = _task(path, data)
    if found.items < FEWEST_ITEMS:
        raise DataError(
            f"{path}: has {found.items} pairs or queries to judge by, and at least {FEWEST_ITEMS} are needed."
        )
    return found


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
