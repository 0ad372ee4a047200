"""Perturbations of texts, to test how robust scores are: noise, filler, and a missing end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

Spans = Sequence[tuple[int, int]]
"""Start and end of each token of a text, in characters, in order."""

SENTENCES: Final = (
    "Further details can be found at the usual place.",
    "This note was last looked at some time ago.",
    "Please take the above as it is written.",
    "More will be added here in due course.",
    "Nothing else needs to be said at this point.",
    "The remarks below are of a general kind.",
    "As always, questions are welcome at any time.",
    "The rest of this page has been left as it was.",
    "Some readers may wish to begin elsewhere.",
    "An earlier version had another heading.",
    "All names have been kept short on purpose.",
    "Whoever finds a mistake is asked to report it.",
    "It was printed on both sides of the sheet.",
    "Copies are kept in the office upstairs.",
    "The next one is expected before the summer.",
    "Thanks go to everybody who took part.",
    "There is a list of terms near the end.",
    "Opinions on this have differed over the years.",
    "What follows may be skipped at first.",
    "The telephone number has changed since then.",
    "Only the last paragraph is new this week.",
    "Both drafts were thrown away long before.",
    "Payment is due within thirty days.",
    "You receive this because you once signed up.",
)
"""About no particular subject, and many, so that two texts rarely get the same."""


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
        perturbed = [_noisy(*each, perturbation.level, words, generator) for each in zip(texts, spans, strict=True)]
    elif perturbation.kind == FILLER:
        perturbed = [_filled(text, int(perturbation.level), generator) for text in texts]
    else:
        perturbed = [_cut(*each, perturbation.level) for each in zip(texts, spans, strict=True)]
    return [after if after.strip() else before for before, after in zip(texts, perturbed, strict=True)]


def _noisy(text: str, spans: Spans, share: float, words: Sequence[str], generator: np.random.Generator) -> str:
    draws = generator.random((len(spans), 3))
    pieces, end = [], 0
    for (start, stop), (chance, drop, word) in zip(spans, draws, strict=True):
        pieces.append(text[end:start])
        if chance >= share:
            pieces.append(text[start:stop])
        elif drop < 0.5:
            pieces.append(words[int(word * len(words))])
        end = max(end, stop)
    return "".join([*pieces, text[end:]])


def _filled(text: str, sentences: int, generator: np.random.Generator) -> str:
    chosen = generator.permutation(len(SENTENCES))[:sentences]
    return " ".join([text, *(SENTENCES[index] for index in chosen)])


def _cut(text: str, spans: Spans, share: float) -> str:
    kept = len(spans) - int(len(spans) * share)
    return text[: spans[kept - 1][1]] if spans else text
