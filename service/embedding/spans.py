"""Spans of characters: their shape, the tokens in them, and how many one request may have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.arrays import Offsets
from service.errors import InvalidInput, Place, TooLarge, shortened

Span = tuple[int, int]
"""Start and end in Unicode code points, as Python counts them; the end is exclusive."""

MOST_COVERED: Final = 1 << 24
"""Most characters of all spans of a request; those in several spans count once for each."""


def offsets_array(offsets: Sequence[Span | None]) -> Offsets:
    """Convert a tokenizer's offsets, None for a token that stands for no character, to an array (tokens, 2)."""
    return np.array([offset or (0, 0) for offset in offsets], np.int64).reshape(-1, 2)


def trimmed(text: str, spans: Sequence[Span]) -> Offsets:
    """Strip the white space from both ends of spans, so that none includes a token by its leading space alone.

    Returns:
        (spans, 2); a span of nothing but white space becomes an empty range.
    """
    found = np.array(spans, np.int64).reshape(-1, 2)
    for place, (start, end) in enumerate(spans):
        if text[start].isspace() or text[end - 1].isspace():
            part = text[start:end]
            last = start + len(part.rstrip())
            found[place] = min(end - len(part.lstrip()), last), last
    return found


def has_token(text: str, offsets: Offsets, spans: Sequence[Span]) -> NDArray[np.bool_]:
    """Return whether each span, stripped of white space, overlaps a token: (spans,)."""
    real = offsets[offsets[:, 0] < offsets[:, 1]]
    real = real[np.argsort(real[:, 0], kind="stable")]
    farthest = np.maximum.accumulate(np.concatenate([[-1], real[:, 1]]))  # ends of the tokens before each
    start, end = trimmed(text, spans).T
    held: NDArray[np.bool_] = (start < end) & (farthest[np.searchsorted(real[:, 0], end)] > start)
    return held


def checked(text: str, offsets: Offsets, spans: Sequence[Sequence[int]], where: Callable[[int], Place]) -> list[Span]:
    """Check the spans of a text that a caller chose, in any order; they may overlap and repeat.

    Raises:
        InvalidInput: a span is empty, reversed, outside the text, or holds none of the tokens at `offsets`.
    """
    found = []
    for place, (start, end) in enumerate(spans):
        if not 0 <= start < end <= len(text):
            raise InvalidInput(
                f"{where(place)} is [{shortened(start)}, {shortened(end)}], {_fault(start, end, len(text))}. A "
                "span is [start, end] in characters (Unicode code points), end exclusive.",
                where=where(place),
            )
        found.append((start, end))
    for place in np.flatnonzero(~has_token(text, offsets, found)).tolist():
        start, end = found[place]
        raise InvalidInput(
            f"{where(place)} is [{start}, {end}], {shortened(text[start:end])}, which holds no token that this "
            "model knows, so there is nothing to embed. Leave it out or widen it.",
            where=where(place),
        )
    return found


def check_amount(spans: Sequence[Sequence[Span]], most: int) -> None:
    """Raise `TooLarge` if texts have more than `most` spans, or their spans more than `MOST_COVERED` characters."""
    count = sum(map(len, spans))
    if count > most:
        raise TooLarge(
            f"the texts have {count} spans or more together and one request takes {most}; send fewer texts at "
            "once, or make longer spans.",
            where=Place("spans"),
            limit=most,
        )
    covered = sum(end - start for found in spans for start, end in found)
    if covered > MOST_COVERED:
        raise TooLarge(
            f"the spans have {covered} characters or more together, those in several spans counted for each, and one "
            f"request takes {MOST_COVERED}; send fewer spans at once, or let them overlap less.",
            where=Place("spans"),
            limit=MOST_COVERED,
        )


def _fault(start: int, end: int, length: int) -> str:
    if start == end:
        return "which is empty"
    if start > end:
        return "which is reversed"
    return f"outside the text of {length} characters"
