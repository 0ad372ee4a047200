"""Texts spoiled on purpose, to see what a vector bears: noise, filler, and an end that is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

Spans = Sequence[tuple[int, int]]
"""Where each token of a text begins and ends, in characters, in order."""

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
"""Of no particular subject, and many, so that two texts seldom get the same."""


@dataclass(frozen=True)
class Change:
    """One way to spoil a text, and how much of it.

    Args:
        kind: `noise`, `filler` or `cut`.
        level: the share of tokens replaced or dropped, the number of sentences appended, the share cut off.

    """

    kind: str
    level: float


NOISE, FILLER, CUT = "noise", "filler", "cut"
CHANGES: Final = (
    *(Change(NOISE, share) for share in (0.1, 0.2, 0.4)),
    *(Change(FILLER, sentences) for sentences in (1, 2, 4)),
    *(Change(CUT, share) for share in (0.25, 0.5)),
)
LABELS: Final = {
    NOISE: "share of tokens replaced or dropped",
    FILLER: "filler sentences appended",
    CUT: "share cut off at the end",
}


def spoil(texts: Sequence[str], spans: Sequence[Spans], change: Change, seed: int = 0) -> list[str]:
    """The texts, changed; one of which nothing would be left stays as it is.

    Args:
        texts: at least one.
        spans: of each text.
        change: what is done.
        seed: of what is drawn; each level changes the same places, and more of them.

    """
    generator = np.random.default_rng(seed)
    if change.kind == NOISE:
        words = [text[start:end] for text, places in zip(texts, spans, strict=True) for start, end in places]
        spoiled = [_noisy(*each, change.level, words, generator) for each in zip(texts, spans, strict=True)]
    elif change.kind == FILLER:
        spoiled = [_filled(text, int(change.level), generator) for text in texts]
    else:
        spoiled = [_cut(*each, change.level) for each in zip(texts, spans, strict=True)]
    return [after if after.strip() else before for before, after in zip(texts, spoiled, strict=True)]


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
    return " ".join([text, *(SENTENCES[place] for place in chosen)])


def _cut(text: str, spans: Spans, share: float) -> str:
    kept = len(spans) - int(len(spans) * share)
    return text[: spans[kept - 1][1]] if spans else text
