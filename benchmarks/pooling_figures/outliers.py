"""Outliers: a spike in one number of one token, by the formula, and one token state gone wrong, measured."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from benchmarks.pooling_figures.gallery import Figure, Panel, curves
from benchmarks.pooling_figures.laboratory import FIXED, Change, Laboratory, by_series, pool, spearman
from pooling import build

SPIKES: Final = (1, 2, 4, 8, 16, 32)
"""In standard deviations of the states."""
TOKENS: Final = 32
TEXTS: Final = 1000
FACTORS: Final = (0, 1, 2, 4, 8, 16, 32)
"""Size of what is added to one token state of each text, relative to the state itself."""


def draw(laboratory: Laboratory) -> Figure:
    poolers = laboratory.minilm.poolers()
    arrived = by_series([_arrived(spike) for spike in SPIKES])
    vectors = (pool(laboratory.read, poolers, _wrong(factor)) for factor in FACTORS)
    scores = by_series([spearman(found, laboratory.pairs) for found in vectors])
    numbers = {
        "synthetic_tokens": TOKENS,
        "spikes": SPIKES,
        "percent_of_the_spike": arrived,
        "pairs": len(laboratory.pairs),
        "factors": FACTORS,
        "spearman": scores,
    }
    panels = [
        Panel(
            f"One number of one token spikes ({TOKENS} random tokens)",
            "size of the spike, in standard deviations",
            "% of it that arrives in the vector",
            SPIKES,
            arrived,
            (-3, 103),
        ),
        Panel(
            "One token state of each text gone wrong",
            "size of the error, relative to the state",
            "Spearman x 100, STS-B",
            FACTORS,
            scores,
            (0, 90),
        ),
    ]
    return Figure(curves(panels, "Outliers (left: random numbers; right: all-MiniLM-L6-v2)"), numbers)


def _arrived(spike: float) -> dict[str, float]:
    """Mean change of one dimension when the token in the middle grows by `spike` there, in % of it."""
    states = torch.randn(TEXTS, TOKENS, 1, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    mask = torch.ones(TEXTS, TOKENS, dtype=torch.bool)
    spiked = states.clone()
    spiked[:, TOKENS // 2] += spike
    with torch.inference_mode():
        poolers = {spec: build(spec, 1) for spec in FIXED}
        return {spec: 100 / spike * float((p(spiked, mask) - p(states, mask)).mean()) for spec, p in poolers.items()}


def _wrong(factor: float) -> Change:
    """To one token of each text, any, something of random direction is added."""
    generator = torch.Generator().manual_seed(7)

    def change(states: Tensor, mask: Tensor) -> Tensor:
        chosen = torch.multinomial(mask.float(), 1, generator=generator)
        at = torch.zeros(mask.shape).scatter(1, chosen, 1.0).unsqueeze(2)
        direction = torch.nn.functional.normalize(torch.randn(states.shape, generator=generator), dim=2)
        return states + factor * at * states.norm(dim=2, keepdim=True) * direction

    return change
