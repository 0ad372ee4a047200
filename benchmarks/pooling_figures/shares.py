"""One sentence under every strategy: which token gives how much of the vector."""

from __future__ import annotations

from typing import Final

from benchmarks.pooling_figures.gallery import Figure, grid
from benchmarks.pooling_figures.laboratory import Laboratory
from pooling import explain

SENTENCE: Final = "The old mill by the pond grinds no more grain."
SPECS: Final = ("cls", "last", "mean", "weighted_mean", "gem(p=3)", "gem(p=10)", "max", "mean + max")


def draw(laboratory: Laboratory) -> Figure:
    encoder = laboratory.minilm
    ids = encoder.ids([SENTENCE])
    (_, states, mask), tokens = encoder.read(ids)[0], encoder.tokenizer.tokens(ids[0])
    shares = {
        spec: [100 * share for share in explain.shares(pooler, states, mask)[0].tolist()]
        for spec, pooler in encoder.poolers(SPECS).items()
    }
    title = "Shares of the vector, in % (all-MiniLM-L6-v2)"
    return Figure(grid(shares, tokens, title), {"tokens": tokens, "shares": shares})
