"""Strategies by themselves: which token gives how much, which one learns, and what has to be kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from benchmarks.encoder import DIM
from benchmarks.plots import Panel, curves, grid, rows
from benchmarks.pooling_figures.laboratory import FIXED, Figure, Laboratory, States, by_series
from pooling import Pooler, build, explain

SENTENCE: Final = "The old mill by the pond grinds no more grain."
SHARED: Final = ("cls", "last", "mean", "weighted_mean", "gem(p=3)", "gem(p=10)", "max", "mean + max")

LENGTHS: Final = (8, 16, 32, 64, 128, 256)
TEXTS: Final = 40
LEARNED: Final = ("attention", "gated", "multihead_attention", "mean + max")
"""Measured as well, and not drawn: untrained, they are the mean."""

COUNTED: Final = (
    *("cls", "last", "mean", "weighted_mean", "max", "mean + max"),
    *("gem(p=3)", "attention(scores=descriptors)", "attention", "gem(p=3, per_dim=True)"),
    "multihead_attention(heads=12, split_heads=True)",
    "gated",
    "multihead_attention(heads=4)",
    "multihead_attention(heads=12, split_heads=True, projection=True)",
)


def shares(laboratory: Laboratory) -> Figure:
    """Show which token of a sentence gives how much of the vector."""
    encoder = laboratory.minilm
    ids = encoder.ids([SENTENCE])
    (_, states, mask), tokens = encoder.read(ids)[0], encoder.tokenizer.tokens(ids[0])
    found = {
        spec: [100 * share for share in explain.shares(pooler, states, mask)[0].tolist()]
        for spec, pooler in encoder.poolers(SHARED).items()
    }
    title = "Shares of the vector, in % (all-MiniLM-L6-v2)"
    return Figure(grid(found, tokens, title), {"tokens": tokens, "shares": found})


def gradients(laboratory: Laboratory) -> Figure:
    """Measure how many of the tokens learn anything when the vector should move."""
    encoder = laboratory.minilm
    long = [text for text in encoder.ids(laboratory.documents) if len(text) == max(LENGTHS)][:TEXTS]
    reach, even = [], []
    for length in LENGTHS:
        batches = encoder.read([np.concatenate([text[: length - 1], text[-1:]]) for text in long])
        sizes = {spec: _gradients(batches, p) for spec, p in encoder.poolers((*FIXED, *LEARNED)).items()}
        reach.append({spec: 100 * float((size > 0).float().mean()) for spec, size in sizes.items()})
        even.append({spec: 100 * _evenness(size) for spec, size in sizes.items()})
    reached, evenness = by_series(reach), by_series(even)
    numbers = {"texts": len(long), "lengths": LENGTHS, "reached": reached, "evenness": evenness}
    titles = ("Tokens that get any gradient", "Tokens that it is spread over (its perplexity)")
    panels = [
        Panel(title, "tokens of the text", "% of the tokens", LENGTHS, {s: found[s] for s in FIXED}, (-3, 105))
        for title, found in zip(titles, (reached, evenness), strict=True)
    ]
    return Figure(curves(panels, "Gradient reach (all-MiniLM-L6-v2, Cranfield)"), numbers)


def _gradients(batches: Sequence[States], pooler: Pooler) -> Tensor:
    """Give the size of each token's gradient (texts, time) for a vector that is pulled in a random direction."""
    found = []
    generator = torch.Generator().manual_seed(7)
    for _, states, mask in batches:
        leaf = states.clone().requires_grad_()
        vectors = pooler(leaf, mask)
        (gradient,) = torch.autograd.grad(vectors, leaf, torch.randn(vectors.shape, generator=generator))
        found.append(gradient.norm(dim=2))
    return torch.cat(found)


def _evenness(sizes: Tensor) -> float:
    """Give exp(entropy) of the gradient's distribution over tokens, per token: 1 where all get alike."""
    portions = sizes / sizes.sum(1, keepdim=True)
    entropy = -(portions * portions.clamp(min=1e-30).log()).sum(1)
    return float((entropy.exp() / sizes.shape[1]).mean())


def parameters(laboratory: Laboratory) -> Figure:
    """Count what has to be fitted and kept, and what an index has to hold of each text."""
    poolers = {spec: build(spec, DIM) for spec in COUNTED}
    counts = {spec: sum(p.numel() for p in pooler.parameters()) for spec, pooler in poolers.items()}
    dimensions = {spec: pooler.output_dim for spec, pooler in poolers.items()}
    numbers = {"dim": DIM, "parameters": counts, "dimensions": dimensions}
    panels = {"Parameters (logarithmic)": counts, "Numbers in a vector": dimensions}
    title = f"Cost, where a token state has {DIM} numbers"
    return Figure(rows(panels, title, logarithmic=["Parameters (logarithmic)"]), numbers)
