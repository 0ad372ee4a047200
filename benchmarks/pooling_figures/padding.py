"""Padding: what becomes of a mean that does not know the mask, beside a longer and longer text."""

from __future__ import annotations

from typing import Final

from torch import Tensor

from benchmarks.pooling_figures.gallery import Figure, Panel, curves
from benchmarks.pooling_figures.laboratory import Laboratory, by_series, pool, unit

PAIRS: Final = 100
TIMES: Final = (32, 64, 128, 256)
"""Tokens of the longest text of the batch, to which the others are padded."""
UNMASKED: Final = "mean without mask"


def draw(laboratory: Laboratory) -> Figure:
    encoder = laboratory.minilm
    # Cut a little, so that the shortest batch holds them too.
    ids = [text[: min(TIMES)] for text in encoder.ids(laboratory.sentences(PAIRS))]
    alone = unit(pool(encoder.read(ids), encoder.poolers(["mean"]))["mean"])
    poolers = encoder.poolers(["mean"]) | {UNMASKED: _unmasked}
    scores, cosines = [], []
    for time in TIMES:
        vectors = pool(encoder.read(ids, time=time), poolers)
        scores.append(laboratory.spearman(vectors))
        cosines.append({name: float((unit(rows) * alone).sum(1).mean()) for name, rows in vectors.items()})
    numbers = {
        "pairs": len(ids) // 2,
        "padded_to": TIMES,
        "spearman": by_series(scores),
        "cosine_to_the_text_alone": by_series(cosines),
    }
    x = "tokens of the longest text in the batch"
    panels = [
        Panel("Cosine with the vector of the text alone", x, "mean cosine", TIMES, by_series(cosines)),
        Panel("What is left of the ranking", x, "Spearman x 100, STS-B", TIMES, by_series(scores)),
    ]
    return Figure(curves(panels, "The mask (all-MiniLM-L6-v2)"), numbers)


def _unmasked(states: Tensor, mask: Tensor) -> Tensor:
    """The mistake: the mean over padding too."""
    return states.mean(1)
