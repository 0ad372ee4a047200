"""Data as tasks: what a pooler is fitted to, and by what it is judged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from pooling.tasks import retrieval, similarity
from pooling.tasks.data import Data, DataError, PositivePairs, Retrieval, ScoredPairs
from pooling.training.losses import cosent, in_batch_negatives
from pooling.training.states import Places

Outcomes = NDArray[np.float64]
Vectors = Callable[[Places], Tensor]
"""From numbers of a task's texts to their vectors."""


class Text(NamedTuple):
    """A text, and whether it is a `query` or a `document` (empty: neither), which may decide its prompt."""

    role: str
    text: str


class Task(ABC):
    """Texts, numbered from 0, and what is known of them.

    An *example* is what a batch of fitting is made of, an *item* what is drawn anew in a bootstrap.
    """

    metric: ClassVar[str]
    texts: Sequence[Text]
    examples: int
    items: int

    @abstractmethod
    def loss(self, vectors: Vectors, examples: Places) -> Tensor:
        """The loss of a batch of examples."""

    @abstractmethod
    def outcomes(self, vectors: Tensor) -> Outcomes:
        """What the vectors (texts, dim) come to for each item."""

    @abstractmethod
    def score(self, outcomes: Outcomes, items: Places | None = None) -> float:
        """The metric, times 100, over all items or those given, of which some may repeat."""


class Similarity(Task):
    """Scored pairs: cosines should rank as the scores do."""

    metric = "Spearman"

    def __init__(self, data: ScoredPairs) -> None:
        self.texts = [Text("", text) for text in data.texts]
        number = {text.text: place for place, text in enumerate(self.texts)}
        self._pairs = np.array([[number[a], number[b]] for a, b in zip(data.first, data.second, strict=True)])
        self._scores = np.array(data.scores)
        self.examples = self.items = len(self._scores)

    def loss(self, vectors: Vectors, examples: Places) -> Tensor:
        """CoSENT over the batch."""
        first, second = vectors(self._pairs[examples].T.ravel()).chunk(2)
        return cosent(F.cosine_similarity(first, second), torch.from_numpy(self._scores[examples]))

    def outcomes(self, vectors: Tensor) -> Outcomes:
        """The cosine of each pair."""
        first, second = self._pairs.T
        return similarity.cosines(vectors.numpy()[first], vectors.numpy()[second])

    def score(self, outcomes: Outcomes, items: Places | None = None) -> float:
        """Spearman's rank correlation; 0 where all cosines, or all scores, are equal."""
        chosen = slice(None) if items is None else items
        return 100 * float(similarity.spearman(outcomes[chosen], self._scores[chosen]))


class Ranking(Task):
    """Queries and their relevant documents: those should rank before all others.

    Args:
        data: what is relevant to what, by grade.
        judged_only: leave out documents that are relevant to no query, which fitting has no use for.
        roles: whether the texts are queries and documents, of which each may have a prompt of its own.

    """

    metric = f"nDCG@{retrieval.CUT}"

    def __init__(self, data: Retrieval, *, judged_only: bool = False, roles: bool = True) -> None:
        relevant = {document for grades in data.relevance.values() for document in grades}
        documents = [document for document in data.documents if not judged_only or document in relevant]
        asked, answer = ("query", "document") if roles else ("", "")
        texts = [Text(asked, data.queries[query]) for query in data.relevance]
        texts += [Text(answer, data.documents[document]) for document in documents]
        number = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        self.texts = list(number)
        self._queries = np.array([number[text] for text in texts[: len(data.relevance)]])
        self._documents = np.array([number[text] for text in texts[len(data.relevance) :]])
        column = {document: place for place, document in enumerate(documents)}
        self._grades = [
            {column[document]: grade for document, grade in grades.items()} for grades in data.relevance.values()
        ]
        pairs = [(query, document) for query, grades in enumerate(self._grades) for document in grades]
        self._pairs = np.array(pairs)
        self.examples, self.items = len(pairs), len(self._queries)

    def loss(self, vectors: Vectors, examples: Places) -> Tensor:
        """In-batch negatives; a document of the batch that is relevant to a query too is no negative of it."""
        queries, documents = self._pairs[examples].T
        places = np.concatenate([self._queries[queries], self._documents[documents]])
        asked, answers = F.normalize(vectors(places), dim=1).chunk(2)
        relevant = np.array([[document in self._grades[query] for document in documents] for query in queries])
        np.fill_diagonal(relevant, val=False)
        return in_batch_negatives(asked @ answers.T, torch.from_numpy(relevant))

    def outcomes(self, vectors: Tensor) -> Outcomes:
        """The nDCG of each query over all documents, exactly searched."""
        found = retrieval.search(vectors.numpy()[self._queries], vectors.numpy()[self._documents], retrieval.CUT)
        graded = [{str(document): grade for document, grade in grades.items()} for grades in self._grades]
        outcomes: Outcomes = retrieval.measure(found.astype(str).tolist(), graded)[:, 0]
        return outcomes

    def score(self, outcomes: Outcomes, items: Places | None = None) -> float:
        """The mean."""
        return 100 * float(outcomes.mean() if items is None else outcomes[items].mean())


def task(data: Data, *, judged_only: bool = False) -> Task:
    """The task that data sets, for fitting (`judged_only`) or for judging.

    Raises:
        DataError: nothing can be fitted to data of this kind, or it says nothing.

    """
    match data:
        case ScoredPairs():
            if len(set(data.scores)) == 1:
                raise DataError(f"every score is {data.scores[0]:g}, so no pair is more alike than another")
            return Similarity(data)
        case PositivePairs():
            return Ranking(data.retrieval, judged_only=judged_only, roles=False)
        case Retrieval():
            return Ranking(data, judged_only=judged_only)
    raise DataError(
        "these are labelled texts. Poolers are fitted to scored pairs (sentence1, sentence2, score), positive pairs "
        "(anchor, positive) or a BEIR folder"
    )
