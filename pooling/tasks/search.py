"""Exact nearest-neighbour search."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Final

import numpy as np
import torch

from pooling.tasks.comparison import COSINE, Cosine
from pooling.tasks.task import Indices, Vectors

_QUERIES, _DOCUMENTS = 256, 8192
"""Sizes of the blocks that are multiplied."""
_MAX_INDEX: Final = 2**32 - 1

_Scores = Callable[[torch.Tensor], Iterator[torch.Tensor]]
"""From prepared vectors of queries to their scores, (queries, documents), with one block of documents after another.
"""


def search(queries: Vectors, documents: Vectors, k: int, comparison: Cosine = COSINE) -> Indices:
    """Find the `k` documents of highest score for each query, or all where there are fewer.

    Args:
        queries: (queries, dim).
        documents: (documents, dim); may be a memory map, which is read in blocks.
        k: number of documents to find.
        comparison: how vectors are compared.

    Returns:
        Indices of documents (queries, k), the best first; ties in the order of the documents.
    """

    def scores(left: torch.Tensor) -> Iterator[torch.Tensor]:
        for start in range(0, len(documents), _DOCUMENTS):
            yield comparison.matrix(left, comparison.prepared(documents[start : start + _DOCUMENTS]))

    return _best(queries, comparison, scores, k)


def search_spans(queries: Vectors, spans: Vectors, starts: Indices, k: int, comparison: Cosine = COSINE) -> Indices:
    """Find documents as `search` does, where a document has several vectors and its highest score counts.

    Args:
        queries: (queries, dim).
        spans: (spans, dim), those of the first document, then of the next; may be a memory map.
        starts: (documents + 1,), where the spans of each document start, and the number of spans; none is empty.
        k: number of documents to find.
        comparison: how vectors are compared.
    """
    edges = np.append(np.arange(0, starts[-1], _DOCUMENTS), starts[-1])
    blocks = np.unique(starts.searchsorted(edges)).tolist()

    def scores(left: torch.Tensor) -> Iterator[torch.Tensor]:
        for first, last in pairwise(blocks):
            found = comparison.matrix(left, comparison.prepared(spans[starts[first] : starts[last]]))
            yield torch.from_numpy(np.maximum.reduceat(found.numpy(), starts[first:last] - starts[first], axis=1))

    return _best(queries, comparison, scores, k)


def _best(queries: Vectors, comparison: Cosine, scores: _Scores, k: int) -> Indices:
    blocks = (comparison.prepared(queries[start : start + _QUERIES]) for start in range(0, len(queries), _QUERIES))
    return np.concatenate([_best_of_block(block, scores, k) for block in blocks])


def _best_of_block(queries: torch.Tensor, all_scores: _Scores, k: int) -> Indices:
    best = torch.empty((len(queries), 0), dtype=torch.int64)
    start = 0
    for scores in all_scores(queries):
        best = torch.cat([best, _keys(scores, start)], dim=1)
        best = best.topk(min(k, best.shape[1]), dim=1).values
        start += scores.shape[1]
    return (_MAX_INDEX - (best & _MAX_INDEX)).numpy()


def _keys(scores: torch.Tensor, start: int) -> torch.Tensor:
    """Pack scores and indices into integers that sort by score, then by index: score in the high half, index low."""
    bits = (scores + 0.0).view(torch.int32)  # + 0.0 turns -0.0 into 0.0
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    indices = torch.arange(start, start + scores.shape[1])
    return (ordered.long() << 32) + (_MAX_INDEX - indices)
