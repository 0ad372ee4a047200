"""Train, dev and test splits: read from files, or held out from train where missing; and what they have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from pooling.tasks import DataError, Task, read
from pooling.tasks.datasets import find_split
from pooling.tasks.task import LEAST_ITEMS
from pooling.training.objectives import Objective, objective

LEAST_EXAMPLES: Final = 50
"""Fewest examples to fit to: below, a fitted pooler reflects the examples more than the encoder."""
HELD_OUT: Final = 0.1


@dataclass(frozen=True)
class Splits:
    """Data to fit to, to select by and to test on.

    Args:
        train: reduced to what fitting needs.
        dev: to select the best pooler by.
        test: to test the selected one on.
        metric: that decides on dev and test, as it is written in reports.
        notes: sentences for the user.
    """

    train: Task
    dev: Task
    test: Task
    metric: str
    notes: tuple[str, ...]


def read_splits(train: Path, dev: Path | None = None, test: Path | None = None) -> Splits:
    """Read the splits, each a file or a folder that has a split of that name.

    If `train` is a folder, missing dev and test splits are looked for there. One that is not found is held out from
    train, a tenth of it: data that tests a pooler must have had no part in fitting or selecting it.

    Raises:
        DataError: a file cannot be used, its items do not differ, or there are too few.
    """
    paths = {"dev": dev or find_split(train, "dev"), "test": test or find_split(train, "test")}
    train = find_split(train, "train") or train
    missing = [split for split, path in paths.items() if path is None]
    left = read(train, "train")
    _check_examples(train, _objective(train, left), missing, LEAST_ITEMS * len(missing))
    tasks = {split: read(path, split) for split, path in paths.items() if path}
    whole = len(left.rows)
    size = max(round(HELD_OUT * whole), LEAST_ITEMS)
    notes = []
    for split in missing:
        left, tasks[split] = hold_out(left, size)
        notes.append(
            f"There is no {split} split: {size} of the {whole} pairs or queries of {train} are held out for it."
        )
    tasks["train"] = left
    for one, other in (("train", "dev"), ("train", "test"), ("dev", "test")):
        notes += _overlap(one, tasks[one], other, tasks[other])
    fitted = _objective(train, left)
    _check_examples(train, fitted, missing)
    metrics = {split: _metric(path or train, tasks[split]) for split, path in paths.items()}
    if metrics["dev"] != metrics["test"]:
        raise DataError(
            f"{paths['dev'] or train} is judged by {metrics['dev']}, {paths['test'] or train} by {metrics['test']}; "
            "dev and test must be data of the same kind."
        )
    return Splits(fitted.needed, tasks["dev"], tasks["test"], metrics["dev"], tuple(notes))


def hold_out(task: Task, size: int, seed: int = 0) -> tuple[Task, Task]:
    """Split off `size` rows at random: return what is left, and those."""
    order = np.random.default_rng(seed).permutation(len(task.rows))
    return task.select(np.sort(order[size:]).tolist()), task.select(np.sort(order[:size]).tolist())


def _overlap(one: str, task: Task, other: str, more: Task) -> Iterator[str]:
    known = set(task.rows)
    if common := sum(row in known for row in more.rows):
        yield (
            f"{common} of the {len(more.rows)} pairs or queries of the {other} split are in {one} too, which "
            "flatters what is fitted."
        )


def _objective(path: Path, task: Task) -> Objective:
    try:
        return objective(task)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _check_examples(path: Path, fitted: Objective, missing: Sequence[str], held_out: int = 0) -> None:
    if fitted.examples < (least := LEAST_EXAMPLES + held_out):
        verb = "is" if len(missing) == 1 else "are"
        where = f" where {' and '.join(missing)} {verb} held out from them" if missing else ""
        raise DataError(f"{path}: has {fitted.examples} pairs to fit to, and at least {least} are needed{where}.")


def _metric(path: Path, task: Task) -> str:
    found = _objective(path, task)
    if task.size < LEAST_ITEMS:
        raise DataError(
            f"{path}: has {task.size} pairs or queries to judge by, and at least {LEAST_ITEMS} are needed."
        )
    return found.metric
