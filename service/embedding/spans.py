"""Cuts texts into spans of characters: those that are given, runs of tokens, or sentences."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final, Protocol

import numpy as np
import regex
from numpy.typing import NDArray

from service.embedding.sentences import Span, sentences
from service.errors import InvalidInput, Place, TooLarge, shortened

__all__ = ["BySentence", "ByTokens", "Cut", "Given", "Offsets", "Span", "check_amount", "offsets_array", "trimmed"]

Offsets = NDArray[np.int64]
"""Where each token starts and ends in its text, (tokens, 2); special tokens and prompts have an empty range."""


MOST_COVERED: Final = 1 << 24
"""Characters of all spans of a request, as often as they are in one: each is read that often."""


class Cut(Protocol):
    """A way to cut a text. Spans are in Unicode code points, as Python counts, end exclusive.

    A token belongs to every span that it overlaps by more than white space, whole: a span that begins or ends inside
    a token, or inside a character of several code points, counts all of that token. Special tokens belong to none.
    """

    def __call__(self, text: str, offsets: Offsets, where: Callable[[int], Place]) -> list[Span]:
        """The spans of a text, each with a token.

        Args:
            text: what is cut.
            offsets: of its tokens.
            where: names a span by its place, for errors.

        Raises:
            InvalidInput: a span cannot be embedded.

        """


@dataclass(frozen=True)
class Given:
    """Spans that the caller chose. They may overlap, come twice, and come in any order."""

    spans: Sequence[Sequence[int]]

    def __call__(self, text: str, offsets: Offsets, where: Callable[[int], Place]) -> list[Span]:
        """The same, checked."""
        found = []
        for place, (start, end) in enumerate(self.spans):
            if not 0 <= start < end <= len(text):
                raise InvalidInput(
                    f"{where(place)} is [{shortened(start)}, {shortened(end)}], {_fault(start, end, len(text))}. A "
                    "span is [start, end] in characters (Unicode code points), end exclusive.",
                    where=where(place),
                )
            found.append((start, end))
        for place in np.flatnonzero(~_has_token(text, offsets, found)).tolist():
            start, end = found[place]
            raise InvalidInput(
                f"{where(place)} is [{start}, {end}], {shortened(text[start:end])}, which holds no token that this "
                "model knows, so there is nothing to embed. Leave it out or widen it.",
                where=where(place),
            )
        return found


@dataclass(frozen=True)
class ByTokens:
    """Runs of `tokens` tokens, the last one shorter, each beginning with the last `overlap` of the one before.

    Spans end where words do, in a word of more than `tokens` tokens where characters do: a run has a few tokens less
    where the next word does not fit, or more where a single character has more. Tokens of white space do not count.
    """

    tokens: int
    overlap: int = 0

    def __call__(self, text: str, offsets: Offsets, where: Callable[[int], Place]) -> list[Span]:
        """Spans without the white space around them; every token of something else is in one."""
        words, counts = _words(text, *_unparted(text, offsets), self.tokens)
        total = [0, *np.cumsum(counts).tolist()]  # tokens before each
        return [(words[first][0], words[last - 1][1]) for first, last in _runs(total, self.tokens, self.overlap)]


@dataclass(frozen=True)
class BySentence:
    """Sentences, as `service.embedding.sentences` finds them."""

    def __call__(self, text: str, offsets: Offsets, where: Callable[[int], Place]) -> list[Span]:
        """The sentences that hold a token."""
        found = sentences(text)
        return [span for span, held in zip(found, _has_token(text, offsets, found), strict=True) if held]


def offsets_array(offsets: Sequence[Span | None]) -> Offsets:
    """Offsets as a tokenizer gives them, (tokens, 2)."""
    return np.array([offset or (0, 0) for offset in offsets], np.int64).reshape(-1, 2)


def trimmed(text: str, spans: Sequence[Span]) -> NDArray[np.int64]:
    """Spans without the white space at their ends, (n, 2), so that none ends in the space a next token begins with.

    What is white space alone comes to an empty range.
    """
    found = np.array(spans, np.int64).reshape(-1, 2)
    for place, (start, end) in enumerate(spans):
        if text[start].isspace() or text[end - 1].isspace():
            part = text[start:end]
            last = start + len(part.rstrip())
            found[place] = min(end - len(part.lstrip()), last), last
    return found


def check_amount(spans: Sequence[Sequence[Span]], most: int) -> None:
    """Raises `TooLarge` where texts have more than `most` spans, or those more than `MOST_COVERED` characters."""
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


def _has_token(text: str, offsets: Offsets, spans: Sequence[Span]) -> NDArray[np.bool_]:
    """Whether each span, without the white space around it, overlaps a token."""
    real = offsets[offsets[:, 0] < offsets[:, 1]]
    real = real[np.argsort(real[:, 0], kind="stable")]
    farthest = np.maximum.accumulate(np.concatenate([[-1], real[:, 1]]))  # ends of the tokens before each
    start, end = trimmed(text, spans).T
    held: NDArray[np.bool_] = (start < end) & (farthest[np.searchsorted(real[:, 0], end)] > start)
    return held


def _unparted(text: str, offsets: Offsets) -> tuple[list[Span], list[int]]:
    """The least spans that part no token and no character, in order, and how many tokens each holds."""
    real = [(int(start), int(end)) for start, end in offsets if start < end]
    edges = None if text.isascii() else [match.start() for match in regex.finditer(r"\X", text)] + [len(text)]
    spans: list[Span] = []
    counts: list[int] = []
    for start, end in trimmed(text, sorted(real)).tolist():
        if start == end:
            continue
        if edges is not None:
            start, end = edges[bisect_right(edges, start) - 1], edges[bisect_left(edges, end)]
        if spans and start < spans[-1][1]:
            spans[-1] = spans[-1][0], max(end, spans[-1][1])
            counts[-1] += 1
        else:
            spans.append((start, end))
            counts.append(1)
    return spans, counts


def _words(text: str, spans: Sequence[Span], counts: Sequence[int], most: int) -> tuple[list[Span], list[int]]:
    """Spans in order, and how many tokens each holds, joined to words (UAX 29) of `most` tokens or fewer."""
    edges = [match.start() for match in regex.finditer(r"\b", text, regex.WORD)]
    words: list[Span] = []
    held: list[int] = []
    for _, parts in groupby(zip(spans, counts, strict=True), lambda part: bisect_right(edges, part[0][0])):
        word = list(parts)
        count = sum(tokens for _, tokens in word)
        if count <= most:
            word = [((word[0][0][0], word[-1][0][1]), count)]
        words += [span for span, _ in word]
        held += [tokens for _, tokens in word]
    return words, held


def _runs(total: Sequence[int], size: int, overlap: int) -> Iterator[tuple[int, int]]:
    """First and last (exclusive) of each run; `total` is the number of tokens before each place."""
    most = len(total) - 1
    first = last = 0
    while last < most:
        last = max(bisect_right(total, total[first] + size) - 1, first + 1)
        yield first, last
        if last < most:
            # As much overlap as is asked for, and room for what comes next.
            shared = bisect_left(total, total[last] - overlap)
            first = min(max(shared, bisect_left(total, total[last + 1] - size), first + 1), last)
