"""Length: more and more of another text after a sentence, and more and more padding after a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from benchmarks.plots import Panel, curves
from benchmarks.pooling_figures.laboratory import FIXED, Encoder, Figure, Laboratory, States, by_series, pool, score
from benchmarks.texts import Vectors, sentences, unit
from pooling import explain

FILLER: Final = (0, 8, 16, 32, 64, 128, 192)
"""Tokens of filler."""
WINDOWS: Final = "window(size=16, stride=8) > max"
SPREAD: Final = ("mean", "max", "weighted_mean", "gem(p=3)", WINDOWS)
"""The strategies that look at words; `cls` and `last` look at a special token, however long the text."""

EVERY: Final = 6
"""One pair in so many is padded: each is encoded at every length."""
TIMES: Final = (32, 64, 128, 256)
"""Tokens of the longest text of the batch, to which the others are padded."""
UNMASKED: Final = "mean without mask"


def length(laboratory: Laboratory) -> Figure:
    """Look for a sentence with more and more of another text after it."""
    encoder = laboratory.minilm
    queries, found_texts = (encoder.ids(side) for side in zip(*laboratory.paraphrases, strict=True))
    poolers = encoder.poolers((*FIXED, WINDOWS))
    asked = pool(encoder.read(queries), poolers)
    filler = [text[1:-1] for text in encoder.ids(laboratory.documents)]
    steps_found, steps_held = [], []
    for count in FILLER:
        longer = [
            np.concatenate([text[:-1], more[:count], text[-1:]])
            for text, more in zip(found_texts, filler, strict=True)
        ]
        batches = encoder.read(longer)
        vectors = pool(batches, poolers)
        steps_found.append({name: _found_first(asked[name], vectors[name]) for name in poolers})
        steps_held.append(_shares(encoder, batches, [len(text) - 2 for text in found_texts]))
    found, held = by_series(steps_found), by_series(steps_held)
    tokens = float(np.mean([len(text) for text in found_texts]))
    numbers = {"texts": len(queries), "filler": FILLER, "tokens_of_a_sentence": tokens}
    numbers |= {"found_first": found, "share_of_the_sentence": held}
    x, y, limits = "tokens of other text after the sentence", f"% first of {len(queries)}", (0, 103)
    panels = [
        Panel("Is the sentence still found by its paraphrase?", x, y, FILLER, found, limits),
        Panel("How much of the vector is the sentence's?", x, "% of the shares", FILLER, held, limits),
    ]
    return Figure(curves(panels, "Length (all-MiniLM-L6-v2)"), numbers)


def _found_first(queries: Vectors, documents: Vectors) -> float:
    """Give the % of queries whose own document has the highest cosine."""
    scores = unit(queries) @ unit(documents).T
    return 100 * float((scores.argmax(1) == np.arange(len(queries))).mean())


def _shares(encoder: Encoder, batches: Sequence[States], words: Sequence[int]) -> dict[str, float]:
    """Give the % of each strategy's shares that the first `words` tokens of each text hold, leaving out `[CLS]`."""
    held, poolers = dict.fromkeys(SPREAD, 0.0), encoder.poolers(SPREAD)
    for places, states, mask in batches:
        at, count = torch.arange(mask.shape[1]), torch.tensor([words[place] for place in places]).unsqueeze(1)
        own = (at >= 1) & (at <= count)
        with torch.inference_mode():
            for name, pooler in poolers.items():
                held[name] += float((explain.shares(pooler, states, mask) * own).sum())
    return {name: 100 * total / len(words) for name, total in held.items()}


def padding(laboratory: Laboratory) -> Figure:
    """Pool with a mean that does not know the mask, beside a longer and longer text."""
    encoder, every = laboratory.minilm, range(0, laboratory.pairs.size, EVERY)
    pairs = laboratory.pairs.select(every)
    # Cut a little, so that the shortest batch holds them too.
    ids = [text[: min(TIMES)] for text in encoder.ids(sentences(pairs))]
    alone = unit(pool(encoder.read(ids), encoder.poolers(["mean"]))["mean"])
    poolers = encoder.poolers(["mean"]) | {UNMASKED: _unmasked}
    steps_scores, steps_cosines = [], []
    for time in TIMES:
        vectors = pool(encoder.read(ids, least=time), poolers)
        steps_scores.append(score({name: _every_other(alone, rows) for name, rows in vectors.items()}, pairs))
        steps_cosines.append({name: float((unit(rows) * alone).sum(1).mean()) for name, rows in vectors.items()})
    scores, cosines = by_series(steps_scores), by_series(steps_cosines)
    numbers = {"pairs": len(every), "padded_to": TIMES, "spearman": scores, "cosine_to_the_text_alone": cosines}
    x, y = "tokens of the longest text in the batch", "Spearman x 100, STS-B"
    panels = [
        Panel("Cosine with the vector of the text alone", x, "mean cosine", TIMES, cosines, (0, 1.03)),
        Panel("Similarity to texts that were embedded alone", x, y, TIMES, scores, (0, 103)),
    ]
    return Figure(curves(panels, "The mask (all-MiniLM-L6-v2)"), numbers)


def _every_other(alone: Vectors, batched: Vectors) -> Vectors:
    """Take of each pair the first sentence as it came alone, a query say, and the second as it came in the batch."""
    mixed = batched.copy()
    mixed[::2] = alone[::2]
    return mixed


def _unmasked(states: Tensor, mask: Tensor) -> Tensor:
    """Make the mistake: the mean over padding too."""
    return states.mean(1)
