"""What becomes of the ranking of a search: a threshold, diversity, and what is shown of a hit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol, TypeVar

import numpy as np

from service.arrays import Vectors
from service.collections.diversity import diversified, rescaled
from service.collections.fusion import Part
from service.similarity import Similarity

MOST_DIVERSE: Final = 1000
"""Candidates that a diverse choice is made from."""


class Candidate(NamedTuple):
    """A document, by its key, or the span of it with an ordinal, that a search has found."""

    key: int
    score: float
    ordinal: int | None = None
    parts: Mapping[str, Part] | None = None


class Ranked(Protocol):
    """What a ranking is of: a candidate, or a hit that was made of one."""

    @property
    def score(self) -> float:
        """The higher, the better."""

    @property
    def parts(self) -> Mapping[str, Part] | None:
        """What each of several rankings gave it; None where its score is a similarity."""


Item = TypeVar("Item", bound=Ranked)


@dataclass(frozen=True, slots=True)
class Refinement:
    """How hits are chosen from a ranking, and what is shown of them.

    Args:
        score_threshold: the lowest score of a hit; None for any.
        diversity: from 0 to 1, how far hits are to differ from each other; None for the order of the scores.
        vectors: whether hits come with their vectors.
    """

    score_threshold: float | None = None
    diversity: float | None = None
    vectors: bool = False

    def depth(self, k: int) -> int:
        """Return how many candidates a choice of `k` hits is made from."""
        return k if self.diversity is None else max(k, min(max(4 * k, 100), MOST_DIVERSE))

    @property
    def before_reranking(self) -> Refinement:
        """What of it the hits need that are to be re-ranked: vectors, where those that differ are chosen after it."""
        return Refinement(vectors=self.vectors or self.diversity is not None)

    def kept(self, candidates: Sequence[Item]) -> list[Item]:
        """Return the candidates whose score is high enough."""
        if self.score_threshold is None:
            return list(candidates)
        return [candidate for candidate in candidates if candidate.score >= self.score_threshold]

    def chosen(self, candidates: Sequence[Item], vectors: Vectors, similarity: Similarity, k: int) -> list[Item]:
        """Choose `k` candidates by `diversity`, with the vector of each, (n, dim).

        Scores that are no similarities, as those of keyword and hybrid searches, count by their place between the
        lowest and the highest.
        """
        assert self.diversity is not None
        similarities = similarity.of_each_pair(vectors)
        relevance = np.array([candidate.score for candidate in candidates], np.float64)
        if any(candidate.parts is not None for candidate in candidates):
            relevance = rescaled(relevance, similarities)
        return [candidates[place] for place in diversified(relevance, similarities, self.diversity, k)]


PLAIN: Final = Refinement()
