"""Strategies whose best documents are scored anew by late interaction, as a search with `rerank` does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np

from pooling.tasks import Retrieval, retrieval
from pooling.tasks.task import Outcomes
from service.arrays import Floats, Vectors
from service.embedding.embedder import Embedder
from service.embedding.late_interaction import MaxSim
from service.evaluation.encoding import Advance

DEPTH: Final = 20
"""Documents that are scored anew unless it is said how many; as in a search."""
MOST_DEPTH: Final = retrieval.DEPTH
"""As many as a ranking has."""
_QUERIES: Final = 64
"""Queries whose states are in memory at once, and which share the passes over documents."""
_DOCUMENTS: Final = 64
"""Documents that are queued at a time."""


@dataclass(frozen=True)
class Reranking:
    """The first documents of each ranking, scored anew by MaxSim over token states.

    Args:
        embedder: whose encoder and prompts are used.
        depth: how many documents of each ranking.
    """

    embedder: Embedder
    depth: int = DEPTH

    def name(self, strategy: str) -> str:
        """Return what the re-ranked rankings of a strategy are called."""
        return f"{strategy}, maxsim"

    def outcomes(self, task: Retrieval, vectors: Sequence[Sequence[Vectors]], advance: Advance) -> list[Outcomes]:
        """Compute what each strategy finds, from its vectors of the parts of the task, after re-ranking.

        A document is read once for all queries of a block, and `advance` called with the number of those done.
        """
        rankings = [task.ranked(own) for own in vectors]
        again = [ranking.copy() for ranking in rankings]
        for start in range(0, task.size, _QUERIES):
            block = slice(start, start + _QUERIES)
            found = np.unique(np.concatenate([ranking[block, : self.depth] for ranking in rankings], axis=None))
            queries, documents = task.parts[1].texts[block], [task.parts[0].texts[document] for document in found]
            scores = asyncio.run(self._scores(queries, documents))
            for ranking, other in zip(rankings, again, strict=True):
                first = ranking[block, : self.depth]
                new = np.take_along_axis(scores.T, np.searchsorted(found, first), axis=1)
                order = np.argsort(-new, axis=1, kind="stable")
                other[block, : self.depth] = np.take_along_axis(first, order, axis=1)
            advance(len(queries))
        return [task.outcomes_of(ranking) for ranking in again]

    async def _scores(self, queries: Sequence[str], documents: Sequence[str]) -> Floats:
        """Return the score of each document for each query, (documents, queries)."""
        maxsim = MaxSim(self.embedder)
        async with maxsim.asked(queries) as to_scores:
            return np.concatenate([await maxsim.scored(to_scores, some) for some in _blocks(documents)])


def _blocks(documents: Sequence[str]) -> Iterator[list[str]]:
    left = iter(documents)
    while some := list(islice(left, _DOCUMENTS)):
        yield some
