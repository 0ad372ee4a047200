"""What each kind of data asks of vectors: which texts to embed, and what their vectors score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray

from pooling.tasks import classification, retrieval, similarity
from pooling.tasks.data import Data, DataError, Labelled, PositivePairs, Retrieval, ScoredPairs

Role = Literal["query", "document"]
Vectors = NDArray[np.float32]
Indices = NDArray[np.int64]
Outcomes = NDArray[Any]
Values = NDArray[np.float64]

LEAST: Final = 20
"""Pairs, queries or texts below which nothing is said: an interval over fewer means little."""


@dataclass(frozen=True)
class Part:
    """Texts that are embedded alike."""

    texts: list[str]
    role: Role | None = None


class Task(ABC):
    """One data set as something to be scored.

    `parts` are the texts to embed. With the vectors of each part in hand, `outcomes` says what a strategy makes
    of every item (pair, query or labelled text), and `scores` sums up the outcomes of any items, so that the same
    outcomes serve each bootstrap sample.
    """

    kind: ClassVar[str]
    items: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]]
    """By name; the first decides which strategy is better."""

    parts: tuple[Part, ...]
    size: int
    """How many items there are."""

    @abstractmethod
    def outcomes(self, parts: Sequence[Vectors]) -> Outcomes:
        """What one strategy makes of each item, (size, ...), from the vectors of `parts`."""

    @abstractmethod
    def scores(self, outcomes: Outcomes, chosen: Indices) -> Values:
        """The metrics of several strategies, (strategies, metrics), over the `chosen` items.

        Args:
            outcomes: (strategies, chosen, ...), of these items alone.
            chosen: the items' places.

        """

    @abstractmethod
    def texts_of(self, chosen: Indices) -> list[str]:
        """The texts that are spoiled to see what the `chosen` items bear."""

    @property
    @abstractmethod
    def spoiled_role(self) -> Role | None:
        """The role of those texts."""

    @abstractmethod
    def outcomes_with(self, chosen: Indices, versions: Sequence[Vectors], parts: Sequence[Vectors]) -> Outcomes:
        """As `outcomes`, of the `chosen` items alone and for several versions of their texts' vectors.

        Returns:
            (versions, chosen, ...).

        """


class Similarity(Task):
    """Pairs of texts with a score: do cosines follow the scores?"""

    kind, items = "similarity", "pairs"
    metrics = ("spearman", "pearson")
    spoiled_role = None

    def __init__(self, data: ScoredPairs) -> None:
        if len(set(data.scores)) == 1:
            raise DataError(
                f"every pair has the score {data.scores[0]:g}, so there is no order to follow. Scores must differ."
            )
        self._scores = np.array(data.scores)
        self._pairs = data
        texts = data.texts
        places = {text: place for place, text in enumerate(texts)}
        self._first = np.array([places[text] for text in data.first])
        self._second = np.array([places[text] for text in data.second])
        self.parts = (Part(texts),)
        self.size = len(data.scores)

    def outcomes(self, parts: Sequence[Vectors]) -> Outcomes:
        """The cosine of each pair."""
        (vectors,) = parts
        return similarity.cosines(vectors[self._first], vectors[self._second])

    def scores(self, outcomes: Outcomes, chosen: Indices) -> Values:
        """Spearman and Pearson."""
        scores = self._scores[chosen]
        return np.stack([similarity.spearman(outcomes, scores), similarity.pearson(outcomes, scores)], axis=-1)

    def texts_of(self, chosen: Indices) -> list[str]:
        """Both texts of each pair: all first ones, then all second ones."""
        return [side[place] for side in (self._pairs.first, self._pairs.second) for place in chosen]

    def outcomes_with(self, chosen: Indices, versions: Sequence[Vectors], parts: Sequence[Vectors]) -> Outcomes:
        """The cosine of each pair."""
        return np.stack([similarity.cosines(each[: len(chosen)], each[len(chosen) :]) for each in versions])


class Search(Task):
    """Queries and documents: are the relevant ones found first, by exact search?"""

    kind, items = "retrieval", "queries"
    metrics = retrieval.METRICS
    spoiled_role: Role = "query"

    def __init__(self, data: Retrieval) -> None:
        self._ids = list(data.documents)
        self._relevance = list(data.relevance.values())
        self.parts = (
            Part(list(data.documents.values()), "document"),
            Part([data.queries[query] for query in data.relevance], "query"),
        )
        self.size = len(self._relevance)

    def outcomes(self, parts: Sequence[Vectors]) -> Outcomes:
        """The metrics of each query."""
        documents, queries = parts
        return self._measured(retrieval.search(queries, documents), range(self.size))

    def outcomes_by_spans(self, queries: Vectors, spans: Vectors, starts: Indices) -> Outcomes:
        """The same where each document has several vectors; see `retrieval.search_spans`."""
        return self._measured(retrieval.search_spans(queries, spans, starts), range(self.size))

    def scores(self, outcomes: Outcomes, chosen: Indices) -> Values:
        """Means over the queries."""
        found: Values = outcomes.mean(axis=1)
        return found

    def texts_of(self, chosen: Indices) -> list[str]:
        """The queries; documents stay as they are."""
        return [self.parts[1].texts[place] for place in chosen]

    def outcomes_with(self, chosen: Indices, versions: Sequence[Vectors], parts: Sequence[Vectors]) -> Outcomes:
        """The metrics of each query."""
        return np.stack([self._measured(retrieval.search(queries, parts[0]), chosen) for queries in versions])

    def _measured(self, found: Indices, asked: Sequence[int] | Indices) -> Values:
        rankings = [[self._ids[place] for place in row] for row in found]
        return retrieval.measure(rankings, [self._relevance[query] for query in asked])


class Classification(Task):
    """Labelled texts: how often does a linear probe over the vectors get the label right?"""

    kind, items = "classification", "texts"
    metrics = ("accuracy", "macro_f1")
    spoiled_role = None

    def __init__(self, data: Labelled) -> None:
        counts = Counter(data.labels)
        if len(counts) == 1:
            raise DataError(f"every text has the label {data.labels[0]!r}; a classifier needs two or more.")
        if rare := [label for label, count in counts.items() if count < classification.FOLDS]:
            shown = ", ".join(f"{label!r} ({counts[label]})" for label in rare[:5]) + (", ..." if rare[5:] else "")
            raise DataError(
                f"each label needs at least {classification.FOLDS} texts, one for each fold of the linear probe; "
                f"too few have {shown}."
            )
        names = {label: number for number, label in enumerate(counts)}
        self._classes = len(names)
        self._labels = np.array([names[label] for label in data.labels])
        texts = data.texts
        places = {text: place for place, text in enumerate(texts)}
        self._places = np.array([places[text] for text in data.items])
        self.parts = (Part(texts),)
        self.size = len(data.labels)

    def outcomes(self, parts: Sequence[Vectors]) -> Outcomes:
        """The label predicted for each text."""
        vectors = parts[0][self._places]
        predicted: Outcomes = classification.predictions(vectors, self._labels, [vectors])[0]
        return predicted

    def scores(self, outcomes: Outcomes, chosen: Indices) -> Values:
        """Accuracy, and F1 as a mean over classes."""
        labels = self._labels[chosen]
        f1 = classification.macro_f1(outcomes, labels, self._classes)
        return np.stack([classification.accuracy(outcomes, labels), f1], axis=-1)

    def texts_of(self, chosen: Indices) -> list[str]:
        """The chosen texts; the probe is fitted on texts as they are."""
        return [self.parts[0].texts[self._places[place]] for place in chosen]

    def outcomes_with(self, chosen: Indices, versions: Sequence[Vectors], parts: Sequence[Vectors]) -> Outcomes:
        """The label predicted for each text."""
        vectors = parts[0][self._places]
        changed = [vectors.copy() for _ in versions]
        for whole, version in zip(changed, versions, strict=True):
            whole[chosen] = version
        return classification.predictions(vectors, self._labels, changed)[:, chosen]


def task(data: Data, limit: int | None = None) -> Task:
    """Data as a task; positive pairs are a search for each anchor's positives among all of them.

    Args:
        data: as `pooling.tasks.data.read` gives it.
        limit: keep only the first so many pairs, queries or texts. Of documents there stay those that are relevant
            to the queries kept, and the first so many others.

    Raises:
        DataError: there are too few items, or they do not differ; the message has no path.

    """
    match data:
        case ScoredPairs():
            data = ScoredPairs(data.first[:limit], data.second[:limit], data.scores[:limit])
            _enough(len(data.scores), Similarity)
            return Similarity(data)
        case Labelled():
            data = Labelled(data.items[:limit], data.labels[:limit])
            _enough(len(data.items), Classification)
            return Classification(data)
        case PositivePairs():
            data = PositivePairs(data.anchors[:limit], data.positives[:limit]).retrieval
        case Retrieval() if limit is not None:
            data = _first_queries(data, limit)
    _enough(len(data.relevance), Search)
    return Search(data)


def _enough(count: int, kind: type[Task]) -> None:
    if count < LEAST:
        raise DataError(
            f"has {count} {kind.items}, and differences between poolings are lost in noise below {LEAST}. "
            f"Give more, a few hundred if there are."
        )


def _first_queries(data: Retrieval, limit: int) -> Retrieval:
    relevance = dict(list(data.relevance.items())[:limit])
    relevant = {document for grades in relevance.values() for document in grades}
    others = set(islice((document for document in data.documents if document not in relevant), limit))
    kept = {place: text for place, text in data.documents.items() if place in relevant or place in others}
    return Retrieval(kept, data.queries, relevance)
