"""Retrieval: whether an exact search finds the relevant documents of each query first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Final

import numpy as np
import pytrec_eval

from pooling.tasks.columns import text
from pooling.tasks.search import search, search_spans
from pooling.tasks.task import Indices, Outcomes, Part, Task, Values, Vectors, distinct, take

CUT: Final = 10
DEPTH: Final = 100
METRICS: Final = (f"ndcg@{CUT}", f"recall@{CUT}", f"mrr@{CUT}", f"map@{DEPTH}")

Relevance = Mapping[str, Mapping[str, int]]


class Retrieval(Task):
    """Queries and documents.

    Args:
        documents: their texts by id.
        queries: their texts by id.
        relevance: by query id, the grades of its relevant documents, above 0; other queries are not used.
    """

    layout, data, kind, items = "retrieval", "queries and documents", "retrieval", "queries"
    metrics = METRICS

    def __init__(self, documents: Mapping[str, str], queries: Mapping[str, str], relevance: Relevance) -> None:
        self.documents, self.queries, self.relevance = documents, queries, relevance
        self._ids, self._grades = list(documents), list(relevance.values())
        self.parts = (
            Part(list(documents.values()), "document"),
            Part([queries[query] for query in relevance], "query"),
        )
        self.size = len(relevance)

    @property
    def rows(self) -> list[frozenset[str]]:
        """The queries."""
        return [frozenset([query]) for query in self.parts[1].texts]

    def select(self, rows: Sequence[int]) -> Retrieval:
        """Return the task of some of the queries over all documents."""
        queries = list(self.relevance)
        relevance = {queries[row]: self.relevance[queries[row]] for row in rows}
        return Retrieval(self.documents, self.queries, relevance)

    def limited(self, count: int) -> Retrieval:
        """Return the task of the first `count` queries over what is relevant to them and `count` other documents."""
        return self._restricted(dict(islice(self.relevance.items(), count)), count)

    def relevant_only(self) -> Retrieval:
        """Return the task without the documents that are relevant to no query."""
        return self._restricted(self.relevance, 0)

    def ranked(self, parts: Sequence[Vectors]) -> Indices:
        """Return the first documents for each query, the best first, (queries, `DEPTH` or all)."""
        documents, queries = parts
        return search(queries, documents, DEPTH, self.comparison)

    def outcomes(self, parts: Sequence[Vectors]) -> Outcomes:
        """Compute the metrics of each query."""
        return self.outcomes_of(self.ranked(parts))

    def outcomes_of(self, rankings: Indices) -> Outcomes:
        """Compute the metrics of each query from the documents that are found for it, as `ranked` gives them."""
        return self._measured(rankings, range(self.size))

    def outcomes_by_spans(self, queries: Vectors, spans: Vectors, starts: Indices) -> Outcomes:
        """Compute the metrics of each query where documents have several vectors; see `search_spans`."""
        return self._measured(search_spans(queries, spans, starts, DEPTH, self.comparison), range(self.size))

    def score(self, outcomes: Outcomes, chosen: Indices) -> Values:
        """Compute the mean of each metric over the queries."""
        found: Values = outcomes.mean(axis=1)
        return found

    def perturbable(self, chosen: Indices) -> Part:
        """Return the queries; documents are not perturbed."""
        return Part([self.parts[1].texts[query] for query in chosen], "query")

    def perturbed_outcomes(self, chosen: Indices, versions: Sequence[Vectors], parts: Sequence[Vectors]) -> Outcomes:
        """Compute the metrics of each perturbed query."""
        found = (search(queries, parts[0], DEPTH, self.comparison) for queries in versions)
        return np.stack([self._measured(ranked, chosen) for ranked in found])

    def _restricted(self, relevance: Relevance, others: int) -> Retrieval:
        relevant = {document for grades in relevance.values() for document in grades}
        kept = {*relevant, *islice((document for document in self.documents if document not in relevant), others)}
        documents = {document: text for document, text in self.documents.items() if document in kept}
        return Retrieval(documents, self.queries, relevance)

    def _measured(self, found: Indices, queries: Sequence[int] | Indices) -> Values:
        rankings = [[self._ids[document] for document in row] for row in found]
        return measure(rankings, [self._grades[query] for query in queries])


class PositivePairs(Retrieval):
    """Pairs of texts that belong together: a search for the positives of each anchor among all positives."""

    columns = (("anchor", text), ("positive", text))
    layout, data = "pairs", "positive pairs"

    def __init__(self, anchors: Sequence[str], positives: Sequence[str]) -> None:
        self.anchors, self.positives = anchors, positives
        (queries, query_of), (documents, document_of) = distinct(anchors), distinct(positives)
        relevance: dict[str, dict[str, int]] = {}
        for query, document in zip(query_of.tolist(), document_of.tolist(), strict=True):
            relevance.setdefault(str(query), {})[str(document)] = 1
        super().__init__(_by_number(documents), _by_number(queries), relevance)

    @property
    def rows(self) -> list[frozenset[str]]:
        """Both texts of each pair, so that their order does not matter."""
        return [frozenset(pair) for pair in zip(self.anchors, self.positives, strict=True)]

    def select(self, rows: Sequence[int]) -> PositivePairs:
        """Return the task of some of the pairs."""
        return PositivePairs(*take(rows, self.anchors, self.positives))

    def limited(self, count: int) -> PositivePairs:
        """Return the task of the first `count` pairs."""
        return self.select(range(min(count, len(self.anchors))))


def measure(rankings: Sequence[Sequence[str]], relevance: Sequence[Mapping[str, int]]) -> Values:
    """Compute `METRICS` for each query with trec_eval: graded nDCG, recall, MRR, and MAP over the given ranking.

    Args:
        rankings: for each query, ids of documents, the best first.
        relevance: for each query, the grades of its relevant documents, at least one.

    Returns:
        (queries, metrics).
    """
    graded = {str(query): dict(grades) for query, grades in enumerate(relevance)}
    # trec_eval ranks by score and breaks ties by id; negated ranks as scores have no ties.
    runs = {
        str(query): {document: float(-rank) for rank, document in enumerate(ranking)}
        for query, ranking in enumerate(rankings)
    }
    measures = {f"ndcg_cut.{CUT}", f"recall.{CUT}", "recip_rank", f"map_cut.{DEPTH}"}
    found = pytrec_eval.RelevanceEvaluator(graded, measures).evaluate(runs)
    rows = [
        (
            scores[f"ndcg_cut_{CUT}"],
            scores[f"recall_{CUT}"],
            scores["recip_rank"] if scores["recip_rank"] > 1 / (CUT + 0.5) else 0.0,
            scores[f"map_cut_{DEPTH}"],
        )
        for scores in (found[query] for query in graded)
    ]
    return np.array(rows, dtype=np.float64)


def _by_number(texts: Sequence[str]) -> dict[str, str]:
    return {str(number): text for number, text in enumerate(texts)}
