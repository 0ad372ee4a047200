"""Late interaction: a query and a document compared token by token, without pooling either (ColBERT)."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

LOWEST: Final = -1.0
"""The lowest cosine, and so the score of a text without a token that counts."""
_CELLS: Final = 1 << 20
"""Cosines in memory at once: 4 MB, which a processor's caches hold or nearly so."""


def maxsim(queries: Tensor, query_mask: Tensor, documents: Tensor, mask: Tensor) -> Tensor:
    """Score each query against each document: the mean, over its tokens, of the largest cosine with a document's.

    That is MaxSim (Khattab & Zaharia 2020) divided by the number of the query's tokens, so that scores are from -1 to
    1 for queries of any length; the order of documents is the same.

    Args:
        queries: token states (queries, query time, dim).
        query_mask: which of them count, (queries, query time), true where one does.
        documents: token states (documents, time, dim).
        mask: which of them count, (documents, time).

    Returns:
        (queries, documents), float32. Either text without a token that counts makes it -1.

    What stands where a mask is false never matters. No more than a few million numbers are in memory at once beside
    the states, whatever the lengths.
    """
    query_mask, mask = query_mask.bool(), mask.bool()
    tokens = torch.nn.functional.normalize(_wide(queries[query_mask]), dim=1)
    best = tokens.new_empty((len(tokens), len(documents)))
    step = max(1, min(len(tokens), _CELLS // max(documents.shape[1], 1)))
    rows = max(1, _CELLS // max(step * documents.shape[1], 1))
    for first in range(0, len(documents), rows):
        some = _wide(documents[first : first + rows])
        lengths = torch.linalg.vector_norm(some, dim=2, keepdim=True).clamp_min(1e-12)
        left_out = ~mask[first : first + rows].unsqueeze(2)
        for start in range(0, len(tokens), step):
            cosines = (some @ tokens[start : start + step].T) / lengths
            largest = cosines.masked_fill(left_out, LOWEST).amax(1)
            best[start : start + step, first : first + rows] = largest.T
    counts = query_mask.sum(1, keepdim=True)
    sums = best.new_zeros((len(queries), len(documents))).index_add(0, query_mask.nonzero()[:, 0], best)
    return torch.where(counts > 0, sums / counts.clamp_min(1), LOWEST)


def _wide(states: Tensor) -> Tensor:
    """Return states in float32 at least, as poolings take them."""
    return states.to(torch.promote_types(states.dtype, torch.float32))
