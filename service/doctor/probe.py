"""Evidence for a pooling where the weights are not known: which strategy tells paraphrases from look-alikes?

Each line of `probe.tsv` has a sentence, another of the same meaning in other words, and a third that shares
words and not the meaning. A strategy that an encoder was not trained for sees the words more than the meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.arrays import Vectors
from service.doctor.findings import Evidence

CONFIDENCE: Final = 0.99
"""Of each interval. Several strategies are compared, so one in twenty would be too often wrong."""
_RESAMPLES: Final = 2000


@cache
def sentences() -> list[str]:
    """All sentences: first those that are compared with, then the paraphrases, then the others."""
    lines = files(__package__).joinpath("probe.tsv").read_text(encoding="utf-8").splitlines()
    return [sentence for column in zip(*(line.split("\t") for line in lines), strict=True) for sentence in column]


def compare(vectors: Mapping[str, Vectors], base: str) -> dict[str, Evidence]:
    """Evidence for each strategy against one of them.

    Args:
        vectors: of `sentences()`, by strategy.
        base: the strategy that the others are compared with.

    """
    wins = {name: _wins(of) for name, of in vectors.items()}
    count = len(wins[base])
    rng = np.random.default_rng(0)
    # How often each line is drawn: the same draws for all strategies, which is what makes the comparison paired.
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=_RESAMPLES).astype(np.float64)
    resampled = {name: ((drawn @ table) * drawn).sum(1) / count**2 for name, table in wins.items()}
    tails = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    found: dict[str, Evidence] = {}
    for name, table in wins.items():
        low, high = np.quantile(resampled[name] - resampled[base], tails)
        gain = float(table.mean() - wins[base].mean())
        found[name] = Evidence(float(table.mean()), gain, (float(low), float(high)))
    return found


def _wins(vectors: Vectors) -> NDArray[np.float64]:
    """Whether each paraphrase (row) is nearer than each other sentence (column): (n, n)."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    anchors, same, other = np.split(unit, 3)
    near, far = (anchors * same).sum(1)[:, None], (anchors * other).sum(1)[None]
    return np.where(near == far, 0.5, near > far)
