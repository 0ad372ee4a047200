"""Padding: what becomes of a mean that does not know the mask, beside a longer and longer text."""

from __future__ import annotations

from typing import Final

from torch import Tensor

from benchmarks.pooling_figures.gallery import Figure, Panel, curves
from benchmarks.pooling_figures.laboratory import Laboratory, Vectors, by_series, pool, sentences, spearman, unit

EVERY: Final = 6
"""One pair in so many: each is encoded at every length."""
TIMES: Final = (32, 64, 128, 256)
"""Tokens of the longest text of the batch, to which the others are padded."""
UNMASKED: Final = "mean without mask"


def draw(laboratory: Laboratory) -> Figure:
    encoder, pairs = laboratory.minilm, laboratory.pairs[::EVERY]
    # Cut a little, so that the shortest batch holds them too.
    ids = [text[: min(TIMES)] for text in encoder.ids(sentences(pairs))]
    alone = unit(pool(encoder.read(ids), encoder.poolers(["mean"]))["mean"])
    poolers = encoder.poolers(["mean"]) | {UNMASKED: _unmasked}
    scores, cosines = [], []
    for time in TIMES:
        vectors = pool(encoder.read(ids, time=time), poolers)
        scores.append(spearman({name: _every_other(alone, rows) for name, rows in vectors.items()}, pairs))
        cosines.append({name: float((unit(rows) * alone).sum(1).mean()) for name, rows in vectors.items()})
    numbers = {
        "pairs": len(pairs),
        "padded_to": TIMES,
        "spearman": by_series(scores),
        "cosine_to_the_text_alone": by_series(cosines),
    }
    x = "tokens of the longest text in the batch"
    panels = [
        Panel("Cosine with the vector of the text alone", x, "mean cosine", TIMES, by_series(cosines), (0, 1.03)),
        Panel(
            "Similarity to texts that were embedded alone",
            x,
            "Spearman x 100, STS-B",
            TIMES,
            by_series(scores),
            (0, 103),
        ),
    ]
    return Figure(curves(panels, "The mask (all-MiniLM-L6-v2)"), numbers)


def _every_other(alone: Vectors, batched: Vectors) -> Vectors:
    """Of each pair, the first sentence as it came alone, a query say, and the second as it came in the batch."""
    mixed = batched.copy()
    mixed[::2] = alone[::2]
    return mixed


def _unmasked(states: Tensor, mask: Tensor) -> Tensor:
    """The mistake: the mean over padding too."""
    return states.mean(1)
