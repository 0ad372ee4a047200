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
TEXTS: Final = 100
ALIKE: Final = 4.4
"""Score from which the sentences of a pair are taken to say the same."""


def draw(laboratory: Laboratory) -> Figure:
    encoder = laboratory.minilm
    alike = [pair[:2] for pair in laboratory.pairs if pair[2] >= ALIKE and pair[0] != pair[1]][:TEXTS]
    queries, sentences = (encoder.ids(side) for side in zip(*alike, strict=True))
    poolers = encoder.poolers()
    asked = pool(encoder.read(queries), poolers)
    filler = _filler(encoder, laboratory.documents, len(sentences))
    steps_found, steps_held = [], []
    for count in FILLER:
        batches = encoder.read([_append(text, more[:count]) for text, more in zip(sentences, filler, strict=True)])
        vectors = pool(batches, poolers)
        steps_found.append({name: _found_first(asked[name], vectors[name]) for name in poolers})
        steps_held.append(_shares(encoder, batches, [len(text) - 1 for text in sentences]))
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
        Panel("Is the sentence still found by its paraphrase?", x, f"% first of {len(sentences)}", FILLER, found),
        Panel("How much of the vector is the sentence's?", x, "% of the shares", FILLER, held),
    ]
    return Figure(curves(panels, "Length (all-MiniLM-L6-v2)"), numbers)


def _filler(encoder: Encoder, documents: Sequence[str], count: int) -> list[Ids]:
    """Tokens of a document for each text, special ones left out."""
    own = [text[1:-1] for text in encoder.ids(documents)]
    return [own[place % len(own)] for place in range(count)]


def _append(text: Ids, filler: Ids) -> Ids:
    """Filler between a text and the special token at its end."""
    return np.concatenate([text[:-1], filler, text[-1:]])


def _found_first(queries: Vectors, documents: Vectors) -> float:
    """% of queries whose own document has the highest cosine."""
    scores = unit(queries) @ unit(documents).T
    return 100 * float((scores.argmax(1) == np.arange(len(queries))).mean())


def _shares(encoder: Encoder, batches: Sequence[Batch], tokens: Sequence[int]) -> dict[str, float]:
    """% of each strategy's shares that the first `tokens` of each text hold, `[CLS]` among them."""
    held = dict.fromkeys(FIXED, 0.0)
    for places, states, mask in batches:
        own = torch.arange(mask.shape[1]) < torch.tensor([tokens[place] for place in places]).unsqueeze(1)
        for name, pooler in encoder.poolers().items():
            held[name] += float((explain.shares(pooler, states, mask) * own).sum())
    return {name: 100 * total / len(tokens) for name, total in held.items()}
