"""Disturbances: noise in all token states or in one, words swapped for others, and a spike in one number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from benchmarks.plots import Panel, curves
from benchmarks.pooling_figures.laboratory import (
    FIXED,
    Change,
    Encoder,
    Figure,
    Ids,
    Laboratory,
    by_series,
    pool,
    score,
)
from benchmarks.texts import sentences
from pooling import build

Y: Final = "Spearman x 100, STS-B"
LEVELS: Final = (0, 0.25, 0.5, 1, 2, 4)
"""Standard deviation of the noise, relative to that of the states."""
SWAPPED: Final = (0, 10, 20, 30, 40, 50)
"""% of a text's tokens."""
SPIKES: Final = (1, 2, 4, 8, 16, 32)
"""In standard deviations of the states."""
TOKENS: Final = 32
TEXTS: Final = 1000
FACTORS: Final = (0, 1, 2, 4, 8, 16, 32)
"""Size of what is added to one token state of each text, relative to the state itself."""


def noise(laboratory: Laboratory) -> Figure:
    """Add noise to the token states, and swap tokens for others before the encoder reads them."""
    encoder, pairs = laboratory.minilm, laboratory.pairs
    ids, poolers = encoder.ids(sentences(pairs)), encoder.poolers()
    noisy = by_series([score(pool(laboratory.read, poolers, _noise(level)), pairs) for level in LEVELS])
    swapped = by_series([score(pool(encoder.read(_swap(encoder, ids, part)), poolers), pairs) for part in SWAPPED])
    numbers = {"pairs": pairs.size, "levels": LEVELS, "spearman_by_noise": noisy}
    numbers |= {"swapped": SWAPPED, "spearman_by_swaps": swapped}
    added, x = "Noise added to every token state", "noise, in standard deviations of the states"
    words = "Words swapped for others before the encoder reads them"
    panels = [
        Panel(added, x, Y, LEVELS, noisy, (0, 90)),
        Panel(words, "% of the tokens", Y, SWAPPED, swapped, (0, 90)),
    ]
    return Figure(curves(panels, "Noise (all-MiniLM-L6-v2)"), numbers)


def _noise(level: float) -> Change:
    generator = torch.Generator().manual_seed(7)

    def add(states: Tensor, mask: Tensor) -> Tensor:
        return states + level * states[mask].std() * torch.randn(states.shape, generator=generator)

    return add


def _swap(encoder: Encoder, ids: Sequence[Ids], percent: float) -> list[Ids]:
    """Replace each token but the special ones, with this probability, by any token of these texts."""
    generator = np.random.default_rng(7)
    special = np.array(encoder.tokenizer.spec.special_ids)
    words = np.concatenate([text[~np.isin(text, special)] for text in ids])
    found = []
    for text in ids:
        chosen = (100 * generator.random(len(text)) < percent) & ~np.isin(text, special)
        found.append(np.where(chosen, generator.choice(words, len(text)), text))
    return found


def outliers(laboratory: Laboratory) -> Figure:
    """Let one number of one token spike, by the formula, and one token state go wrong, measured."""
    pairs, poolers = laboratory.pairs, laboratory.minilm.poolers()
    arrived = by_series([_arrived(spike) for spike in SPIKES])
    scores = by_series([score(pool(laboratory.read, poolers, _wrong(factor)), pairs) for factor in FACTORS])
    numbers = {"synthetic_tokens": TOKENS, "spikes": SPIKES, "percent_of_the_spike": arrived}
    numbers |= {"pairs": pairs.size, "factors": FACTORS, "spearman": scores}
    spike = f"One number of one token spikes ({TOKENS} random tokens)"
    x, y = "size of the spike, in standard deviations", "% of it that arrives in the vector"
    wrong, size = "One token state of each text gone wrong", "size of the error, relative to the state"
    panels = [Panel(spike, x, y, SPIKES, arrived, (-3, 103)), Panel(wrong, size, Y, FACTORS, scores, (0, 90))]
    return Figure(curves(panels, "Outliers (left: random numbers; right: all-MiniLM-L6-v2)"), numbers)


def _arrived(spike: float) -> dict[str, float]:
    """Give the mean change of one dimension when the token in the middle grows by `spike` there, in % of it."""
    states = torch.randn(TEXTS, TOKENS, 1, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    mask = torch.ones(TEXTS, TOKENS, dtype=torch.bool)
    spiked = states.clone()
    spiked[:, TOKENS // 2] += spike
    with torch.inference_mode():
        poolers = {spec: build(spec, 1) for spec in FIXED}
        return {spec: 100 / spike * float((p(spiked, mask) - p(states, mask)).mean()) for spec, p in poolers.items()}


def _wrong(factor: float) -> Change:
    """Add something of random direction to one token of each text, any."""
    generator = torch.Generator().manual_seed(7)

    def change(states: Tensor, mask: Tensor) -> Tensor:
        chosen = torch.multinomial(mask.float(), 1, generator=generator)
        at = torch.zeros(mask.shape).scatter(1, chosen, 1.0).unsqueeze(2)
        direction = torch.nn.functional.normalize(torch.randn(states.shape, generator=generator), dim=2)
        changed: Tensor = states + factor * at * states.norm(dim=2, keepdim=True) * direction
        return changed

    return change
