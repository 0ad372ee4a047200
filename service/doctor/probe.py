"""Evidence for a pooling if the weights are unknown: which pooling tells paraphrases from look-alikes?

Each line of `probe.tsv` has a sentence, another of the same meaning in other words, and a third that shares
words but not the meaning. Vectors of a pooling that the encoder was not trained for follow words more than meaning.
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
"""Confidence of each interval. Several poolings are compared, so one error in twenty would be too many."""
_RESAMPLES: Final = 2000


@cache
def sentences() -> list[str]:
    """Return all sentences: first the anchors, then their paraphrases, then the look-alikes."""
    lines = files(__package__).joinpath("probe.tsv").read_text(encoding="utf-8").splitlines()
    return [sentence for column in zip(*(line.split("\t") for line in lines), strict=True) for sentence in column]


def compare(vectors: Mapping[str, Vectors], base: str) -> dict[str, Evidence]:
    """Return the evidence for each pooling, compared with one of them.

    Args:
        vectors: vectors of `sentences()`, by pooling.
        base: the pooling that the others are compared with.
    """
    wins = {name: _wins(of) for name, of in vectors.items()}
    count = len(wins[base])
    rng = np.random.default_rng(0)
    # How often each line is drawn. All poolings share the draws, so the comparison is paired.
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
    """Return whether each paraphrase (row) is nearer than each look-alike (column), (n, n); 0.5 for a tie."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    anchors, same, other = np.split(unit, 3)
    near, far = (anchors * same).sum(1)[:, None], (anchors * other).sum(1)[None]
    return np.where(near == far, 0.5, near > far)
