"""Causal against bidirectional encoders: how good a vector each strategy makes, and what a single token knows."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from benchmarks.plots import Panel, bars
from benchmarks.pooling_figures.laboratory import FIXED, Figure, Laboratory, Pool, pool, score
from benchmarks.texts import sentences

PLACES: Final = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Of a token in its text: 0 is the first, 1 the last."""
Y: Final = "Spearman x 100, STS-B"
LIMITS: Final = (-12, 95)


def causal(laboratory: Laboratory) -> Figure:
    """Score each strategy, and single tokens, under a bidirectional and a causal encoder."""
    pairs = laboratory.pairs
    by_strategy, by_place, first_tokens = {}, {}, {}
    encoders = {"all-MiniLM-L6-v2, bidirectional": laboratory.minilm, "SmolLM2-135M, causal": laboratory.smollm2}
    for name, encoder in encoders.items():
        ids = encoder.ids(sentences(pairs))
        alone = {f"{place:g}": _token_at(place) for place in PLACES}
        scores = score(pool(encoder.read(ids), {**encoder.poolers(), **alone}), pairs)
        by_strategy[name] = {spec: scores[spec] for spec in FIXED}
        by_place[name] = {place: scores[place] for place in alone}
        first_tokens[name] = len({int(text[0]) for text in ids})
    numbers = {"pairs": pairs.size, "spearman_by_strategy": by_strategy, "spearman_of_one_token": by_place}
    strategies, places = ({name: [*by.values()] for name, by in of.items()} for of in (by_strategy, by_place))
    where = "0: the first token, 1: the last"
    panels = [
        Panel("By strategy", "", Y, FIXED, strategies, LIMITS),
        Panel("One token alone, by its place in the text", where, Y, PLACES, places, LIMITS),
    ]
    drawing = bars(panels, "Who has read the text: bidirectional and causal encoders")
    return Figure(drawing, numbers | {"first_tokens_that_differ": first_tokens})


def _token_at(place: float) -> Pool:
    def take(states: Tensor, mask: Tensor) -> Tensor:
        at = ((mask.sum(1) - 1) * place).round().long()
        return states[torch.arange(len(states)), at]

    return take
