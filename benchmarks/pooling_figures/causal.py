"""Causal against bidirectional encoders: how good a vector each strategy makes, and what a single token knows."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from benchmarks.pooling_figures.gallery import Figure, Panel, bars
from benchmarks.pooling_figures.laboratory import FIXED, Laboratory, Pool, pool, sentences, spearman

PLACES: Final = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Of a token in its text: 0 is the first, 1 the last."""
LIMITS: Final = (-12, 95)


def draw(laboratory: Laboratory) -> Figure:
    by_strategy, by_place, first_tokens = {}, {}, {}
    encoders = {
        "all-MiniLM-L6-v2, bidirectional": laboratory.minilm,
        "SmolLM2-135M, causal": laboratory.smollm2,
    }
    for name, encoder in encoders.items():
        ids = encoder.ids(sentences(laboratory.pairs))
        alone = {f"{place:g}": _token_at(place) for place in PLACES}
        scores = spearman(pool(encoder.read(ids), {**encoder.poolers(), **alone}), laboratory.pairs)
        by_strategy[name] = {spec: scores[spec] for spec in FIXED}
        by_place[name] = {place: scores[place] for place in alone}
        first_tokens[name] = len({int(text[0]) for text in ids})
    numbers = {
        "pairs": len(laboratory.pairs),
        "spearman_by_strategy": by_strategy,
        "spearman_of_one_token": by_place,
        "first_tokens_that_differ": first_tokens,
    }
    y = "Spearman x 100, STS-B"
    panels = [
        Panel(
            "By strategy",
            "",
            y,
            FIXED,
            {name: list(scores.values()) for name, scores in by_strategy.items()},
            LIMITS,
        ),
        Panel(
            "One token alone, by its place in the text",
            "0: the first token, 1: the last",
            y,
            PLACES,
            {name: list(scores.values()) for name, scores in by_place.items()},
            LIMITS,
        ),
    ]
    return Figure(bars(panels, "Who has read the text: bidirectional and causal encoders"), numbers)


def _token_at(place: float) -> Pool:
    def take(states: Tensor, mask: Tensor) -> Tensor:
        at = ((mask.sum(1) - 1) * place).round().long()
        return states[torch.arange(len(states)), at]

    return take
