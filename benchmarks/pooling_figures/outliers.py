"""Outliers: a spike in one number of one token, by the formula, and one token state gone wrong, measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from benchmarks.pooling_figures.gallery import Figure, Panel, curves
from benchmarks.pooling_figures.laboratory import FIXED, Change, Laboratory, by_series, pool
from pooling import build

SPIKES: Final = (0, 1, 2, 4, 8, 16, 32)
"""In standard deviations of the states."""
TOKENS: Final = 32
TEXTS: Final = 1000
FACTORS: Final = (0, 1, 2, 4, 8, 16, 32)
"""Size of what is added to one token state of each text, relative to the state itself."""


def draw(laboratory: Laboratory) -> Figure:
    poolers = laboratory.minilm.poolers()
    moved = by_series([_moved(spike) for spike in SPIKES])
    scores = by_series([laboratory.spearman(pool(laboratory.read, poolers, _wrong(factor))) for factor in FACTORS])
    numbers = {
        "synthetic_tokens": TOKENS,
        "spikes": SPIKES,
        "moved_by_spike": moved,
        "pairs": len(laboratory.pairs),
        "factors": FACTORS,
        "spearman": scores,
    }
    panels = [
        Panel(
            f"One number of one token spikes ({TOKENS} random tokens)",
            "size of the spike, in standard deviations",
            "how far it moves the vector's number",
            SPIKES,
            moved,
        ),
        Panel(
            "One token state of each text gone wrong (all-MiniLM-L6-v2)",
            "size of the error, relative to the state",
            "Spearman x 100, STS-B",
            FACTORS,
            scores,
        ),
    ]
    return Figure(curves(panels, "Outliers"), numbers)


def _moved(spike: float, specs: Sequence[str] = FIXED) -> dict[str, float]:
    """Mean change of one dimension when the token in the middle grows by `spike` there."""
    states = torch.randn(TEXTS, TOKENS, 1, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    mask = torch.ones(TEXTS, TOKENS, dtype=torch.bool)
    spiked = states.clone()
    spiked[:, TOKENS // 2] += spike
    with torch.inference_mode():
        poolers = {spec: build(spec, 1) for spec in specs}
        return {spec: float((p(spiked, mask) - p(states, mask)).abs().mean()) for spec, p in poolers.items()}


def _wrong(factor: float) -> Change:
    """To one token of each text, any, something of random direction is added."""
    generator = torch.Generator().manual_seed(7)

    def change(states: Tensor, mask: Tensor) -> Tensor:
        chosen = torch.multinomial(mask.float(), 1, generator=generator)
        at = torch.zeros(mask.shape).scatter(1, chosen, 1.0).unsqueeze(2)
        direction = torch.nn.functional.normalize(torch.randn(states.shape, generator=generator), dim=2)
        return states + factor * at * states.norm(dim=2, keepdim=True) * direction

    return change
