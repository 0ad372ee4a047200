"""Exact search, and how good its rankings are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final

import numpy as np
import pytrec_eval
import torch
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Values = NDArray[np.float64]

CUT: Final = 10
DEPTH: Final = 100
METRICS: Final = (f"ndcg@{CUT}", f"recall@{CUT}", f"mrr@{CUT}", f"map@{DEPTH}")

_QUERIES, _DOCUMENTS = 256, 8192
"""How many of each are multiplied at once."""

_Cosines = Callable[[torch.Tensor], Iterator[torch.Tensor]]
"""From unit vectors of queries to their cosines with some documents, (queries, documents), and with the next ones."""


def search(queries: Vectors, documents: Vectors, k: int = DEPTH) -> NDArray[np.int64]:
    """The `k` documents of highest cosine for each query, or all where there are fewer.

    Args:
        queries: (queries, dim).
        documents: (documents, dim); may be mapped from a file, of which a block at a time is read.
        k: how many to find.

    Returns:
        Places of documents (queries, k), the best first, equal ones in the order of the documents.

    """

    def cosines(left: torch.Tensor) -> Iterator[torch.Tensor]:
        for start in range(0, len(documents), _DOCUMENTS):
            yield left @ _normalized(documents[start : start + _DOCUMENTS]).T

    return _best(queries, cosines, k)


def search_spans(queries: Vectors, spans: Vectors, starts: NDArray[np.int64], k: int = DEPTH) -> NDArray[np.int64]:
    """As `search`, where a document has several vectors, of which the one of highest cosine counts.

    Args:
        queries: (queries, dim).
        spans: (spans, dim), those of the first document, then the next; may be mapped from a file.
        starts: where the spans of each document start, and where the last one's end, (documents + 1,); each has one.
        k: how many documents to find.

    """
    edges = np.append(np.arange(0, starts[-1], _DOCUMENTS), starts[-1])
    blocks = np.unique(starts.searchsorted(edges)).tolist()

    def cosines(left: torch.Tensor) -> Iterator[torch.Tensor]:
        for first, last in pairwise(blocks):
            scores = left @ _normalized(spans[starts[first] : starts[last]]).T
            yield torch.from_numpy(np.maximum.reduceat(scores.numpy(), starts[first:last] - starts[first], axis=1))

    return _best(queries, cosines, k)


def _best(queries: Vectors, cosines: _Cosines, k: int) -> NDArray[np.int64]:
    found = [_search(queries[start : start + _QUERIES], cosines, k) for start in range(0, len(queries), _QUERIES)]
    return np.concatenate(found)


def _search(queries: Vectors, cosines: _Cosines, k: int) -> NDArray[np.int64]:
    left = _normalized(queries)
    best = torch.empty((len(left), 0), dtype=torch.int64)
    start = 0
    for scores in cosines(left):
        best = torch.cat([best, _keys(scores, start)], dim=1)
        best = best.topk(min(k, best.shape[1]), dim=1).values
        start += scores.shape[1]
    places: NDArray[np.int64] = (_LAST - (best & _LAST)).numpy()
    return places


def _normalized(vectors: Vectors) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.from_numpy(np.array(vectors)), dim=1)


_LAST: Final = 2**32 - 1


def _keys(scores: torch.Tensor, start: int) -> torch.Tensor:
    """Whole numbers that sort as the scores do, and equal scores by place: the score above, the place below."""
    bits = (scores + 0.0).view(torch.int32)  # -0.0 is 0.0 from here on
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    places = torch.arange(start, start + scores.shape[1])
    return (ordered.long() << 32) + (_LAST - places)


def measure(rankings: Sequence[Sequence[str]], relevance: Sequence[Mapping[str, int]]) -> Values:
    """`METRICS` for each query by trec_eval: nDCG with graded gain, recall, MRR, and MAP over the ranking given.

    Args:
        rankings: for each query ids of documents, the best first.
        relevance: for each query the grades of its relevant documents, at least one.

    Returns:
        (queries, metrics).

    """
    judged = {str(query): dict(grades) for query, grades in enumerate(relevance)}
    # trec_eval ranks by score and breaks ties by id; the places say the same without any.
    runs = {
        str(query): {document: float(-place) for place, document in enumerate(ranking)}
        for query, ranking in enumerate(rankings)
    }
    measures = {f"ndcg_cut.{CUT}", f"recall.{CUT}", "recip_rank", f"map_cut.{DEPTH}"}
    found = pytrec_eval.RelevanceEvaluator(judged, measures).evaluate(runs)
    rows = [
        (
            scores[f"ndcg_cut_{CUT}"],
            scores[f"recall_{CUT}"],
            scores["recip_rank"] if scores["recip_rank"] > 1 / (CUT + 0.5) else 0.0,
            scores[f"map_cut_{DEPTH}"],
        )
        for scores in (found[query] for query in judged)
    ]
    return np.array(rows, dtype=np.float64)
