"""Length: a sentence that is looked for, and more and more of another text after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch

from benchmarks.pooling_figures.gallery import Figure, Panel, curves
from benchmarks.pooling_figures.laboratory import (
    FIXED,
    Batch,
    Encoder,
    Ids,
    Laboratory,
    Vectors,
    by_series,
    pool,
    unit,
)
from pooling import explain

FILLER: Final = (0, 8, 16, 32, 64, 128, 192)
"""Tokens of filler."""
WINDOWS: Final = "window(size=16, stride=8) > max"
SPREAD: Final = ("mean", "max", "weighted_mean", "gem(p=3)", WINDOWS)
"""The strategies that look at words; `cls` and `last` look at a special token, however long the text."""


def draw(laboratory: Laboratory) -> Figure:
    encoder = laboratory.minilm
    queries, sentences = (encoder.ids(side) for side in zip(*laboratory.paraphrases, strict=True))
    poolers = encoder.poolers((*FIXED, WINDOWS))
    asked = pool(encoder.read(queries), poolers)
    filler = [text[1:-1] for text in encoder.ids(laboratory.documents)]
    steps_found, steps_held = [], []
    for count in FILLER:
        batches = encoder.read([_append(text, more[:count]) for text, more in zip(sentences, filler, strict=True)])
        vectors = pool(batches, poolers)
        steps_found.append({name: _found_first(asked[name], vectors[name]) for name in poolers})
        steps_held.append(_shares(encoder, batches, [len(text) - 2 for text in sentences]))
    found, held = by_series(steps_found), by_series(steps_held)
    numbers = {
        "texts": len(sentences),
        "filler": FILLER,
        "tokens_of_a_sentence": float(np.mean([len(text) for text in sentences])),
        "found_first": found,
        "share_of_the_sentence": held,
    }
    x = "tokens of other text after the sentence"
    panels = [
        Panel(
            "Is the sentence still found by its paraphrase?",
            x,
            f"% first of {len(sentences)}",
            FILLER,
            found,
            (0, 103),
        ),
        Panel("How much of the vector is the sentence's?", x, "% of the shares", FILLER, held, (0, 103)),
    ]
    return Figure(curves(panels, "Length (all-MiniLM-L6-v2)"), numbers)


def _append(text: Ids, filler: Ids) -> Ids:
    """Filler between a text and the special token at its end."""
    return np.concatenate([text[:-1], filler, text[-1:]])


def _found_first(queries: Vectors, documents: Vectors) -> float:
    """% of queries whose own document has the highest cosine."""
    scores = unit(queries) @ unit(documents).T
    return 100 * float((scores.argmax(1) == np.arange(len(queries))).mean())


def _shares(encoder: Encoder, batches: Sequence[Batch], words: Sequence[int]) -> dict[str, float]:
    """% of each strategy's shares that the first `words` tokens of each text hold, `[CLS]` not among them."""
    held, poolers = dict.fromkeys(SPREAD, 0.0), encoder.poolers(SPREAD)
    for places, states, mask in batches:
        at, count = torch.arange(mask.shape[1]), torch.tensor([words[place] for place in places]).unsqueeze(1)
        own = (at >= 1) & (at <= count)
        with torch.inference_mode():
            for name, pooler in poolers.items():
                held[name] += float((explain.shares(pooler, states, mask) * own).sum())
    return {name: 100 * total / len(words) for name, total in held.items()}
