"""Texts disturbed: tokens replaced or dropped, words swapped, filler appended, and a missing end.

A higher level does what a lower one does, and more, where both draw from generators of one seed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from math import ceil
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

_BLANKS: Final = re.compile(r"(\s+)")
_ROUNDING: Final = 1e-9
"""Of a share times a number of tokens, which is not to become one token more."""


def spans_of(offsets: Iterable[tuple[int, int] | None]) -> list[tuple[int, int]]:
    """Return the start and end of each token that stands for characters, in order and without overlap."""
    spans: list[tuple[int, int]] = []
    for offset in offsets:
        # Several tokens may share one character of several bytes.
        if offset is not None and (not spans or offset[0] >= spans[-1][1]):
            spans.append(offset)
    return spans


def replaced(text: str, spans: Spans, share: float, words: Sequence[str], generator: np.random.Generator) -> str:
    """Replace about this share of tokens, half of them by one of `words` and half by nothing."""
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


def swapped(text: str, swaps: int, generator: np.random.Generator) -> str:
    """Swap words with the one after them, each place at most once; words are what stands between blanks."""
    pieces = _BLANKS.split(text)
    words = [place for place, piece in enumerate(pieces) if piece and not piece.isspace()]
    if len(words) > 1:
        for place in generator.permutation(len(words) - 1)[:swaps]:
            one, other = words[place], words[place + 1]
            pieces[one], pieces[other] = pieces[other], pieces[one]
    return "".join(pieces)


def filled(text: str, sentences: int, generator: np.random.Generator) -> str:
    """Append sentences that say nothing in particular, of which there are as many as `SENTENCES`."""
    chosen = generator.permutation(len(SENTENCES))[:sentences]
    return " ".join([text, *(SENTENCES[index] for index in chosen)])


def kept(text: str, spans: Spans, share: float) -> str:
    """Keep this share of a text's tokens, at least one, and cut the end off."""
    count = max(ceil(len(spans) * share - _ROUNDING), 1)
    return text[: spans[count - 1][1]] if count < len(spans) else text
