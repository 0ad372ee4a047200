"""What poolers are fitted to: the examples of a task, and the loss over a batch of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pooling.tasks import DataError, Retrieval, Similarity, Task
from pooling.tasks.retrieval import CUT
from pooling.tasks.task import Indices

SCALE: Final = 20.0
"""Factor on cosines, as in sentence-transformers: the inverse of a temperature of 0.05."""

Vectors = Callable[[Indices], Tensor]
"""From indices of texts, counted through all parts of the task, to their vectors (texts, dim)."""


class Objective(ABC):
    """What poolers are fitted to on a task."""

    metric: ClassVar[str]
    """The deciding metric of the task, as it is written in reports."""

    needed: Task
    """The same task without the texts that no example has."""
    examples: int
    """Number of examples."""

    @abstractmethod
    def __init__(self, task: Any) -> None: ...

    @abstractmethod
    def loss(self, vectors: Vectors, examples: Indices) -> Tensor:
        """Compute the loss of a batch of examples."""


class RankPairs(Objective):
    """Order the cosines of pairs by their scores, with CoSENT over the pairs of a batch."""

    metric = "Spearman"

    def __init__(self, task: Similarity) -> None:
        task.check_variety()
        self.needed, self._pairs, self._scores = task, task.pairs, task.scores
        self.examples = task.size

    def loss(self, vectors: Vectors, examples: Indices) -> Tensor:
        """Compute the loss of a batch of pairs."""
        first, second = vectors(self._pairs[examples].T.ravel()).chunk(2)
        return cosent(F.cosine_similarity(first, second), torch.from_numpy(self._scores[examples]))


class RankDocuments(Objective):
    """Rank the relevant documents of a query first, with in-batch negatives; an example is a relevant pair."""

    metric = f"nDCG@{CUT}"

    def __init__(self, task: Retrieval) -> None:
        self.needed = task.relevant_only()
        self._first_query = len(task.documents)
        numbers = {document: number for number, document in enumerate(task.documents)}
        self._relevant = [
            dict.fromkeys(numbers[document] for document in grades) for grades in task.relevance.values()
        ]
        self._pairs = np.array([(query, document) for query, of in enumerate(self._relevant) for document in of])
        self.examples = len(self._pairs)

    def loss(self, vectors: Vectors, examples: Indices) -> Tensor:
        """Compute the loss of a batch; documents relevant to more of its queries are no negatives of those."""
        queries, documents = self._pairs[examples].T
        indices = np.concatenate([self._first_query + queries, documents])
        left, right = F.normalize(vectors(indices), dim=1).chunk(2)
        excluded = np.array([[document in self._relevant[query] for document in documents] for query in queries])
        np.fill_diagonal(excluded, val=False)
        return in_batch_negatives(left @ right.T, torch.from_numpy(excluded))


OBJECTIVES: Final[dict[str, type[Objective]]] = {
    Similarity.kind: RankPairs,
    Retrieval.kind: RankDocuments,
}
"""By the kind of task."""


def objective(task: Task) -> Objective:
    """Make the objective of a task.

    Raises:
        DataError: poolers cannot be fitted to such a task, or its items do not differ; the message has no path.
    """
    if task.kind not in OBJECTIVES:
        raise DataError(
            f"these are {task.data}. Poolers are fitted to scored pairs (sentence1, sentence2, score), positive "
            "pairs (anchor, positive) or a BEIR folder."
        )
    return OBJECTIVES[task.kind](task)


def cosent(cosines: Tensor, scores: Tensor, scale: float = SCALE) -> Tensor:
    """Compute CoSENT (Su 2022): log(1 + sum of exp(scale (c_j - c_i)) over all i, j where i has the higher score).

    Only the order of the scores matters, which is what a rank correlation measures. A batch in which all
    scores are equal has a loss of zero.

    Args:
        cosines: (pairs,), of the vectors of each pair.
        scores: (pairs,), how similar they should be.
        scale: as `SCALE`.
    """
    wrong = scale * (cosines.unsqueeze(0) - cosines.unsqueeze(1))
    wrong = wrong[scores.unsqueeze(1) > scores.unsqueeze(0)]
    return torch.cat([wrong.new_zeros(1), wrong]).logsumexp(0)


def in_batch_negatives(cosines: Tensor, excluded: Tensor, scale: float = SCALE) -> Tensor:
    """Compute multiple negatives ranking (Henderson et al. 2017): each query's document among those of the batch.

    Args:
        cosines: (queries, documents), as many of each; document i belongs to query i.
        excluded: (queries, documents), bool: documents that are no negatives of a query because they are relevant
            to it as well. The diagonal must be false.
        scale: as `SCALE`.
    """
    logits = (scale * cosines).masked_fill(excluded, -torch.inf)
    return F.cross_entropy(logits, torch.arange(len(cosines)))
