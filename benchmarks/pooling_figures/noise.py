"""Noise: added to the token states, and as tokens swapped for others before the encoder reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from benchmarks.pooling_figures.gallery import Figure, Panel, curves
from benchmarks.pooling_figures.laboratory import (
    Change,
    Encoder,
    Ids,
    Laboratory,
    by_series,
    pool,
    sentences,
    spearman,
)

LEVELS: Final = (0, 0.25, 0.5, 1, 2, 4)
"""Standard deviation of the noise, relative to that of the states."""
SWAPPED: Final = (0, 10, 20, 30, 40, 50)
"""% of a text's tokens."""


def draw(laboratory: Laboratory) -> Figure:
    encoder, pairs = laboratory.minilm, laboratory.pairs
    ids, poolers = encoder.ids(sentences(pairs)), encoder.poolers()
    noisy = by_series([spearman(pool(laboratory.read, poolers, _noise(level)), pairs) for level in LEVELS])
    swapped = by_series(
        [spearman(pool(encoder.read(_swapped(encoder, ids, part)), poolers), pairs) for part in SWAPPED]
    )
    numbers = {
        "pairs": len(pairs),
        "levels": LEVELS,
        "spearman_by_noise": noisy,
        "swapped": SWAPPED,
        "spearman_by_swaps": swapped,
    }
    y = "Spearman x 100, STS-B"
    panels = [
        Panel(
            "Noise added to every token state",
            "noise, in standard deviations of the states",
            y,
            LEVELS,
            noisy,
            (0, 90),
        ),
        Panel(
            "Words swapped for others before the encoder reads them", "% of the tokens", y, SWAPPED, swapped, (0, 90)
        ),
    ]
    return Figure(curves(panels, "Noise (all-MiniLM-L6-v2)"), numbers)


def _noise(level: float) -> Change:
    generator = torch.Generator().manual_seed(7)

    def add(states: Tensor, mask: Tensor) -> Tensor:
        return states + level * states[mask].std() * torch.randn(states.shape, generator=generator)

    return add


def _swapped(encoder: Encoder, ids: Sequence[Ids], percent: float) -> list[Ids]:
    """Each token but the special ones replaced, with this probability, by any token of these texts."""
    generator = np.random.default_rng(7)
    special = np.array(encoder.tokenizer.spec.special_ids)
    words = np.concatenate([text[~np.isin(text, special)] for text in ids])
    found = []
    for text in ids:
        chosen = (100 * generator.random(len(text)) < percent) & ~np.isin(text, special)
        found.append(np.where(chosen, generator.choice(words, len(text)), text))
    return found
