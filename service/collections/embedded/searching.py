"""Searching a collection: by vectors, by words, by both, and by documents that are like others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.arrays import Keys, Ordinals, Vectors
from service.collections.embedded.contents import Contents
from service.collections.embedded.moment import Moment
from service.collections.fusion import fuse
from service.collections.protocols import Hit
from service.collections.provenance import Definition
from service.collections.refinement import PLAIN, Candidate, Refinement
from service.errors import InvalidInput, KeywordsUnavailable, Place, StoreDamaged
from service.store.document import Document, checked_ids
from service.store.filters import AnyFilter, Filter, compiled
from service.store.keyword import UNAVAILABLE
from service.store.tokenizers import limited

DENSE: Final = "dense"
KEYWORD: Final = "keyword"
_FUSED, _LEAST_FUSED = 2, 100
"""How many candidates of each ranking are fused for one hit, and at least."""


class Searching(Contents):
    """The part of a collection that searches it."""

    def search(
        self,
        vectors: NDArray[np.floating[Any]],
        k: int,
        filter: AnyFilter | None = None,  # noqa: A002 - the name it has in the HTTP contract
        *,
        grouped: bool = False,
        exact: bool = False,
        under: Definition | None = None,
        refinement: Refinement = PLAIN,
    ) -> list[list[Hit]]:
        """Return the `k` nearest documents to each query (q, dim), best first, or the nearest spans of documents."""
        condition = _condition(k, filter)
        with self._moment() as moment:
            self._require_current(under, moment.definition)
            queries = moment.checked(vectors)
            allowed = self._matching(condition, moment.view)
            found = moment.view.search(queries, refinement.depth(k), allowed, distinct=grouped, exact=exact)
            return self._hits(moment, _candidates(found), k, refinement)

    def terms(self, query: str, where: Place | None = None, *, truncate: bool = False) -> list[str]:
        """Return the terms of a query as keyword and hybrid searches take them; none where it has no word."""
        if self.tokenizer is None:
            raise KeywordsUnavailable(
                f"collection {self.name!r} was created without a keyword index, so its texts are not searched by "
                "words. Use mode 'dense', or store its documents in one that is created with \"keyword\": "
                '{"tokenizer": "unicode61"}.'
            )
        if not self._store.has_keywords(self._row.key):
            raise KeywordsUnavailable(UNAVAILABLE)
        return limited(self.tokenizer.terms(query, where), where, truncate=truncate)

    def search_keywords(
        self,
        queries: Sequence[Sequence[str]],
        k: int,
        filter: AnyFilter | None = None,  # noqa: A002
        *,
        refinement: Refinement = PLAIN,
    ) -> list[list[Hit]]:
        """Return the `k` documents that match the terms of each query best, by BM25; a document counts once."""
        condition = _condition(k, filter)
        with self._moment() as moment:
            allowed = self._matching(condition, moment.view)
            depth = refinement.depth(k)
            found = [fuse({KEYWORD: self._by_terms(terms, depth, allowed)}) for terms in queries]
            rankings = [
                [Candidate(one.item, one.parts[KEYWORD].score, None, one.parts) for one in fused] for fused in found
            ]
            return self._hits(moment, rankings, k, refinement)

    def search_hybrid(
        self,
        vectors: NDArray[np.floating[Any]],
        queries: Sequence[Sequence[str]],
        k: int,
        filter: AnyFilter | None = None,  # noqa: A002
        *,
        weights: Mapping[str, float] | None = None,
        exact: bool = False,
        under: Definition | None = None,
        refinement: Refinement = PLAIN,
    ) -> list[list[Hit]]:
        """Return the `k` best documents for each query by both its vector (dim) and its terms; see `fuse`."""
        condition = _condition(k, filter)
        depth = max(_FUSED * refinement.depth(k), _LEAST_FUSED)
        with self._moment() as moment:
            self._require_current(under, moment.definition)
            asked = moment.checked(vectors)
            allowed = self._matching(condition, moment.view)
            nearest = _candidates(moment.view.search(asked, depth, allowed, distinct=True, exact=exact))
            rankings = []
            for vector, dense, terms in zip(asked, nearest, queries, strict=True):
                by_vector = [(candidate.key, candidate.score) for candidate in dense]
                by_terms = self._by_terms(terms, depth, allowed)
                fused = fuse({DENSE: by_vector, KEYWORD: by_terms}, weights)[: refinement.depth(k)]
                places = {candidate.key: candidate.ordinal for candidate in dense}
                missing = np.array(sorted({one.item for one in fused} - places.keys()), np.int64)
                if len(missing) and moment.definition.chunking is not None:
                    (others,) = _candidates(moment.view.search(vector[None], len(missing), missing, distinct=True))
                    places |= {candidate.key: candidate.ordinal for candidate in others}
                rankings.append([Candidate(one.item, one.score, places.get(one.item), one.parts) for one in fused])
            return self._hits(moment, rankings, k, refinement)

    def recommend(
        self,
        positive: Sequence[str],
        negative: Sequence[str],
        k: int,
        filter: AnyFilter | None = None,  # noqa: A002
        *,
        grouped: bool = False,
        refinement: Refinement = PLAIN,
    ) -> tuple[list[Hit], Vectors]:
        """Return the `k` hits nearest to some documents and away from others, and the vector (dim,) asked by."""
        condition = _condition(k, filter)
        with self._moment() as moment:
            asked = [*checked_ids(positive, "positive"), *checked_ids(negative, "negative")]
            keys = self._store.keys_of(self._row.key, asked)
            for each in (*positive, *negative):
                if each not in keys:
                    raise self._absent(each)
            stored = self._store.vectors_at(moment.dim, [(keys[each], None) for each in (*positive, *negative)])
            averages = np.array([moment.average(own) for own in stored if own is not None], np.float64)
            vector: NDArray[np.float64] = averages[: len(positive)].mean(axis=0)
            if negative:
                vector = 2 * vector - averages[len(positive) :].mean(axis=0)
            if not vector.any():
                raise InvalidInput(
                    "the positive and the negative documents cancel out, which leaves no direction.",
                    where=Place("negative" if negative else "positive"),
                )
            query = moment.checked(vector[None])
            allowed = self._matching(condition, moment.view)
            own_spans = len(keys) if grouped else sum(len(own) for own in stored if own is not None)
            found = _candidates(
                moment.view.search(query, refinement.depth(k) + own_spans, allowed, distinct=grouped)
            )[0]
            given = set(keys.values())
            others = [candidate for candidate in found if candidate.key not in given]
            return self._hits(moment, [others[: refinement.depth(k)]], k, refinement)[0], query[0]

    def _by_terms(self, terms: Sequence[str], depth: int, allowed: Keys | None) -> list[tuple[int, float]]:
        keys, scores = self._store.by_terms(self._row.key, terms, depth, allowed)
        return list(zip(keys.tolist(), scores.tolist(), strict=True))

    def _hits(
        self, moment: Moment, rankings: Sequence[Sequence[Candidate]], k: int, refinement: Refinement
    ) -> list[list[Hit]]:
        """Return the hits of rankings of candidates, refined."""
        rankings = [refinement.kept(candidates) for candidates in rankings]
        if refinement.diversity is not None:
            rankings = [
                refinement.chosen(candidates, self._vectors(moment, candidates), moment.definition.similarity, k)
                for candidates in rankings
            ]
        rankings = [candidates[:k] for candidates in rankings]
        found = {candidate.key for candidates in rankings for candidate in candidates}
        documents = self._store.by_keys(np.array(sorted(found), np.int64))
        return [
            [
                _hit(documents[candidate.key], candidate, vector)
                for candidate, vector in zip(
                    candidates,
                    self._vectors(moment, candidates) if refinement.vectors else repeat(None),
                    strict=False,
                )
            ]
            for candidates in rankings
        ]

    def _vectors(self, moment: Moment, candidates: Sequence[Candidate]) -> Vectors:
        """Return the vector of each candidate (n, dim): of its span, or of its document."""
        places = [(candidate.key, candidate.ordinal) for candidate in candidates]
        own = [moment.average(each) for each in self._store.vectors_at(moment.dim, places) if each is not None]
        return np.array(own, np.float32).reshape(-1, moment.dim)


def _condition(k: int, filter: AnyFilter | None) -> Filter | None:  # noqa: A002
    """Return a compiled filter, None where all match; raises `InvalidFilter`, and `ValueError` for a low `k`."""
    if k < 1:
        raise ValueError(f"k must be 1 or more, not {k}")
    return compiled(filter)


def _candidates(found: tuple[Vectors, Keys, Ordinals]) -> list[list[Candidate]]:
    """Return what an index has found, by query."""
    return [
        [Candidate(key, score, ordinal) for score, key, ordinal in zip(*row, strict=True)]
        for row in zip(*(part.tolist() for part in found), strict=True)
    ]


def _hit(document: Document, candidate: Candidate, vector: Vectors | None) -> Hit:
    spans, ordinal = document.spans, candidate.ordinal
    if spans is not None and ordinal is not None and not 0 <= ordinal < len(spans):
        raise StoreDamaged(
            f"the file is damaged: document {document.id!r} lacks spans that it was stored with. Restore the file "
            "from a backup, or store the document again."
        )
    span = spans[ordinal] if spans is not None and ordinal is not None else None
    return Hit(document.id, candidate.score, document.text, document.metadata, span, candidate.parts, vector)
