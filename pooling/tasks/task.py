"""What all kinds of task have in common: texts to embed, and scores for their vectors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from pooling.tasks.columns import Parser
from pooling.tasks.comparison import COMPARISONS, COSINE, Cosine

Role = Literal["query", "document"]
Vectors = NDArray[np.float32]
Indices = NDArray[np.int64]
Outcomes = NDArray[Any]
Values = NDArray[np.float64]

LEAST_ITEMS: Final = 20
"""Fewest items to score poolings on: a confidence interval over fewer is too wide to be useful."""

_Value = TypeVar("_Value")


class DataError(ValueError):
    """A data set cannot be used; the message names what is wrong and what would be right.

    Args:
        row: the number of the first row at fault; None where it is none in particular.
    """

    def __init__(self, message: str, *, row: int | None = None) -> None:
        super().__init__(message)
        self.row = row


@dataclass(frozen=True)
class Part:
    """Texts that are embedded in the same way: all with the prompt of `role`, or with the default one if None."""

    texts: Sequence[str]
    role: Role | None = None


class Task(ABC):
    """A data set that vectors can be scored on.

    `parts` are the texts to embed. From their vectors, `outcomes` computes one result for each item (a pair, a
    query or a labelled text), and `score` aggregates the outcomes of any selection of items. One set of outcomes
    thus serves every bootstrap sample.

    A row is a line of the file; splits and overlaps are by row. Rows and items are the same except for positive
    pairs, where all rows of an anchor make one query.

    A kind that is read from a table is constructed from its columns, each as a sequence.
    """

    columns: ClassVar[tuple[tuple[str, Parser], ...]] = ()
    """The columns of its table and what parses each, in the order of the constructor's arguments."""
    layout: ClassVar[str]
    """The layout of its files: `pairs`, `retrieval` or `classification`."""
    data: ClassVar[str]
    """What a file holds, in the plural."""
    kind: ClassVar[str]
    items: ClassVar[str]
    """What an item is, in the plural."""
    metrics: ClassVar[tuple[str, ...]]
    """Their names; the first decides which strategy is better."""

    parts: tuple[Part, ...]
    size: int
    """Number of items."""
    comparison: Cosine = COSINE
    """How vectors are compared, where they are."""
    look: Callable[[], object] = staticmethod(lambda: None)
    """Called between the steps of what takes long, such as fitting; what it raises ends that."""

    @abstractmethod
    def __init__(self, *columns: Any) -> None: ...

    @property
    @abstractmethod
    def rows(self) -> list[frozenset[str]]:
        """The texts that identify each row."""

    @abstractmethod
    def select(self, rows: Sequence[int]) -> Task:
        """Return the task of some of the rows."""

    def limited(self, count: int) -> Task:
        """Return the task of the first `count` rows, or of all if there are fewer."""
        return self.select(range(min(count, len(self.rows))))

    def compared_by(self, similarity: str) -> Self:
        """Return the task with vectors compared by `cosine`, `dot` or `euclidean`."""
        other = copy(self)
        other.comparison = COMPARISONS[similarity]
        return other

    def watched_by(self, look: Callable[[], object]) -> Self:
        """Return the task with another `look`."""
        other = copy(self)
        other.look = look
        return other

    def check_variety(self) -> None:  # noqa: B027 -- by default there is nothing to check
        """Check that the items differ in what is scored.

        Raises:
            DataError: they do not; the message has no path.
        """

    def check(self) -> None:
        """Check that poolings can be told apart on this data.

        Raises:
            DataError: there are too few items, or they do not differ; the message has no path.
        """
        if self.size < LEAST_ITEMS:
            raise DataError(
                f"has {self.size} {self.items}, and differences between poolings are lost in noise below "
                f"{LEAST_ITEMS}. Give more, a few hundred if there are."
            )
        self.check_variety()

    @abstractmethod
    def outcomes(self, parts: Sequence[Vectors]) -> Outcomes:
        """Compute the outcome of each item, (size, ...), from the vectors of `parts`, (texts, dim) each."""

    @abstractmethod
    def score(self, outcomes: Outcomes, chosen: Indices) -> Values:
        """Compute the metrics of several strategies over some items.

        Args:
            outcomes: (strategies, chosen, ...), of these items only.
            chosen: indices of the items, which may repeat.

        Returns:
            (strategies, metrics).
        """

    @abstractmethod
    def perturbable(self, chosen: Indices) -> Part:
        """Return the texts to perturb in order to test how robust the scores of the chosen items are."""

    @abstractmethod
    def perturbed_outcomes(self, chosen: Indices, versions: Sequence[Vectors], parts: Sequence[Vectors]) -> Outcomes:
        """Compute the outcomes of the chosen items for several versions of the vectors of their `perturbable` texts.

        Args:
            chosen: indices of the items.
            versions: (texts, dim) each.
            parts: the vectors of the unperturbed `parts`.

        Returns:
            (versions, chosen, ...).
        """


def distinct(texts: Iterable[str]) -> tuple[list[str], Indices]:
    """Return every text once, in order of first occurrence, and the index of each given text among them."""
    numbers: dict[str, int] = {}
    indices = [numbers.setdefault(text, len(numbers)) for text in texts]
    return list(numbers), np.array(indices)


def take(rows: Sequence[int], *columns: Sequence[_Value]) -> Iterator[tuple[_Value, ...]]:
    """Return some rows of each column."""
    return (tuple(column[row] for row in rows) for column in columns)
