"""Perturbations of texts, to test how robust scores are: noise, filler, and a missing end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from service.embedding.perturbations import Spans, filled, kept, replaced


@dataclass(frozen=True)
class Perturbation:
    """One way to perturb a text, and by how much.

    Args:
        kind: `noise`, `filler` or `cut`.
        level: share of tokens replaced or dropped, number of sentences appended, or share of tokens cut off.
    """

    kind: str
    level: float


NOISE, FILLER, CUT = "noise", "filler", "cut"
PERTURBATIONS: Final = (
    *(Perturbation(NOISE, share) for share in (0.1, 0.2, 0.4)),
    *(Perturbation(FILLER, sentences) for sentences in (1, 2, 4)),
    *(Perturbation(CUT, share) for share in (0.25, 0.5)),
)
LABELS: Final = {
    NOISE: "share of tokens replaced or dropped",
    FILLER: "filler sentences appended",
    CUT: "share cut off at the end",
}


def perturb(texts: Sequence[str], spans: Sequence[Spans], perturbation: Perturbation, seed: int = 0) -> list[str]:
    """Perturb texts; one of which nothing would be left is returned unchanged.

    Args:
        texts: at least one.
        spans: of the tokens of each text.
        perturbation: what to do.
        seed: of the draws; a higher level changes the same tokens and more.
    """
    generator = np.random.default_rng(seed)
    if perturbation.kind == NOISE:
        words = [text[start:end] for text, own in zip(texts, spans, strict=True) for start, end in own]
        perturbed = [replaced(*each, perturbation.level, words, generator) for each in zip(texts, spans, strict=True)]
    elif perturbation.kind == FILLER:
        perturbed = [filled(text, int(perturbation.level), generator) for text in texts]
    else:
        perturbed = [kept(*each, 1 - perturbation.level) for each in zip(texts, spans, strict=True)]
    return [after if after.strip() else before for before, after in zip(texts, perturbed, strict=True)]
