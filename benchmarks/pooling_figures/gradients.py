"""Gradient reach: of the tokens that count, how many learn anything when the vector should move."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from benchmarks.pooling_figures.gallery import Figure, Panel, curves
from benchmarks.pooling_figures.laboratory import FIXED, Batch, Ids, Laboratory, by_series
from pooling import Pooler

LENGTHS: Final = (8, 16, 32, 64, 128, 256)
TEXTS: Final = 40
LEARNED: Final = ("attention", "gated", "multihead_attention", "mean + max")
"""Compared as well, and drawn where some token gets nothing; untrained, they are the mean."""


def draw(laboratory: Laboratory) -> Figure:
    encoder = laboratory.minilm
    long = [text for text in encoder.ids(laboratory.documents) if len(text) == max(LENGTHS)][:TEXTS]
    reach, even = [], []
    for length in LENGTHS:
        batches = encoder.read([_cut(text, length) for text in long])
        sizes = {spec: _gradients(batches, p) for spec, p in encoder.poolers((*FIXED, *LEARNED)).items()}
        reach.append({spec: 100 * float((size > 0).float().mean()) for spec, size in sizes.items()})
        even.append({spec: 100 * _evenness(size) for spec, size in sizes.items()})
    reached, evenness = by_series(reach), by_series(even)
    numbers = {"texts": len(long), "lengths": LENGTHS, "reached": reached, "evenness": evenness}
    x, y = "tokens of the text", "% of the tokens"
    drawn = [{spec: found[spec] for spec in FIXED} for found in (reached, evenness)]
    panels = [
        Panel("Tokens that get any gradient", x, y, LENGTHS, drawn[0], (-3, 105)),
        Panel("Tokens that it is spread over (its perplexity)", x, y, LENGTHS, drawn[1], (-3, 105)),
    ]
    return Figure(curves(panels, "Gradient reach (all-MiniLM-L6-v2, Cranfield)"), numbers)


def _cut(text: Ids, length: int) -> Ids:
    """The start of a text and the special token at its end."""
    return np.concatenate([text[: length - 1], text[-1:]])


def _gradients(batches: Sequence[Batch], pooler: Pooler) -> Tensor:
    """The size of each token's gradient (texts, time) for a vector that is pulled in a random direction."""
    found = []
    generator = torch.Generator().manual_seed(7)
    for _, states, mask in batches:
        leaf = states.clone().requires_grad_()
        vectors = pooler(leaf, mask)
        vectors.backward(torch.randn(vectors.shape, generator=generator))
        assert leaf.grad is not None
        found.append(leaf.grad.norm(dim=2))
    return torch.cat(found)


def _evenness(sizes: Tensor) -> float:
    """exp(entropy) of the gradient's distribution over tokens, per token: 1 where all get alike."""
    portions = sizes / sizes.sum(1, keepdim=True)
    entropy = -(portions * portions.clamp(min=1e-30).log()).sum(1)
    return float((entropy.exp() / sizes.shape[1]).mean())
