"""Chunkers: ways to cut a text into spans of characters.

A chunker is found by its name. To add one, write a frozen dataclass whose fields are its options, whole numbers with
their limits, and list it in `CHUNKERS`: requests, collections and the command line then know it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from itertools import groupby
from typing import ClassVar, Final

import numpy as np
import regex

from service.arrays import Offsets
from service.embedding.sentences import sentences
from service.embedding.spans import Span, has_token, trimmed
from service.embedding.windows import MOST_WINDOWED
from service.errors import InvalidInput, did_you_mean, shortened


@dataclass(frozen=True)
class Chunker(ABC):
    """A way to cut a text into spans.

    A token belongs to every span that it overlaps by more than white space, and belongs to it whole: a span that
    starts or ends inside a token, or inside a character of several code points, counts all of that token. Special
    tokens belong to no span.
    """

    name: ClassVar[str]

    @abstractmethod
    def __call__(self, text: str, offsets: Offsets, most: int = MOST_WINDOWED) -> list[Span]:
        """Cut a text whose tokens are at `offsets`, (tokens, 2), into spans that each hold a token.

        `most` tokens are what the model reads at once: no span has more, unless a request asks for more.
        """


@dataclass(frozen=True)
class ByTokens(Chunker):
    """Runs of `tokens` tokens, the last one shorter, each starting with the last `overlap` tokens of the one before.

    Spans end at word boundaries, and inside a word only if it has more than `tokens` tokens, there at character
    boundaries. So a run is a few tokens short if the next word does not fit, and longer if a single character has
    more tokens. Tokens of white space do not count.
    """

    name = "tokens"
    tokens: int = field(metadata={"ge": 1, "le": MOST_WINDOWED, "description": "Tokens of a span."})
    overlap: int = field(
        default=0, metadata={"ge": 0, "description": "Tokens that a span shares with the one before."}
    )

    def __post_init__(self) -> None:
        if self.overlap >= self.tokens:
            raise InvalidInput(
                f"'overlap' must be less than 'tokens', and {self.overlap} is not less than {self.tokens}."
            )

    def __call__(self, text: str, offsets: Offsets, most: int = MOST_WINDOWED) -> list[Span]:
        """Return spans without white space at their ends; together they hold every token that is not white space."""
        words, counts = _words(text, *_atoms(text, offsets), self.tokens)
        total = [0, *np.cumsum(counts).tolist()]  # tokens before each
        return [(words[first][0], words[last - 1][1]) for first, last in _runs(total, self.tokens, self.overlap)]


@dataclass(frozen=True)
class BySentence(Chunker):
    """Sentences, as `service.embedding.sentences` finds them.

    One with more tokens than the model reads at once, such as a list of words or a table without a full stop, is cut
    into runs of about equal length as `ByTokens` cuts.
    """

    name = "sentence"

    def __call__(self, text: str, offsets: Offsets, most: int = MOST_WINDOWED) -> list[Span]:
        """Return the sentences that hold a token."""
        found = sentences(text)
        held = [span for span, holds in zip(found, has_token(text, offsets, found), strict=True) if holds]
        if len(offsets) <= most:
            return held
        starts, ends = np.sort(offsets[offsets[:, 0] < offsets[:, 1]], axis=0).T
        parts: list[Span] = []
        for start, end in held:
            count = int(np.searchsorted(starts, end) - np.searchsorted(ends, start, "right"))
            parts += [(start, end)] if count <= most else _shorter(text, offsets, (start, end), count, most)
        return parts


_ENDS: Final = 8
"""One in so many tokens of a run is left free: alone, the words at its ends may have more than inside a sentence."""

CHUNKERS: Final[Mapping[str, type[Chunker]]] = {kind.name: kind for kind in (ByTokens, BySentence)}
"""All chunkers, by name."""

OPTIONS: Final = {option.name: option for kind in CHUNKERS.values() for option in fields(kind)}
"""The options of all chunkers, by name. Each has its default, and in `metadata` its limits and description."""


def build(name: str, given: Mapping[str, int]) -> Chunker:
    """Make the chunker of this name with the options given.

    Raises:
        InvalidInput: the name is unknown, an option is missing or foreign, or options contradict each other.
    """
    if name not in CHUNKERS:
        known = ", ".join(map(repr, CHUNKERS))
        raise InvalidInput(
            f"{shortened(name)} is no way to cut a text; known are {known}.{did_you_mean(name, CHUNKERS)}"
        )
    kind = CHUNKERS[name]
    refuse_foreign(name, given, {option.name for option in fields(kind)})
    for option in fields(kind):
        if option.default is MISSING and option.name not in given:
            free = [f"'by': {other!r}" for other, kind in CHUNKERS.items() if not fields(kind)]
            raise InvalidInput(f"by {name}, {option.name!r} must say how many; or give {' or '.join(free)}.")
    return kind(**given)


def refuse_foreign(name: str, given: Mapping[str, int], own: Collection[str] = ()) -> None:
    """Raise `InvalidInput` if options are given that are not among those of this way to cut, `own`."""
    if given.keys() - set(own):
        foreign = [repr(option) for option in OPTIONS if option not in own]
        raise InvalidInput(f"'by': '{name}' takes {'neither' if len(foreign) > 1 else 'no'} {' nor '.join(foreign)}.")


def _shorter(text: str, offsets: Offsets, span: Span, count: int, most: int) -> list[Span]:
    """Cut a span of `count` tokens, which are more than `most`, into runs of about equal length."""
    start, end = span
    runs = -(-count // max(1, most - most // _ENDS))
    inside = offsets[(offsets[:, 0] < end) & (offsets[:, 1] > start)]
    found = ByTokens(-(-count // runs))(text[start:end], np.clip(inside - start, 0, end - start))
    return [(start + first, start + last) for first, last in found]


def _atoms(text: str, offsets: Offsets) -> tuple[list[Span], list[int]]:
    """Return the smallest spans that split neither a token nor a character, in order, and the tokens in each."""
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
    """Join spans into words (UAX 29) of at most `most` tokens; longer words stay split. `counts` are their tokens."""
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
    """Yield first and last (exclusive) word of each run; `total[i]` is the number of tokens before word i."""
    most = len(total) - 1
    first = last = 0
    while last < most:
        last = max(bisect_right(total, total[first] + size) - 1, first + 1)
        yield first, last
        if last < most:
            # As much overlap as asked for, as long as the next word fits too.
            shared = bisect_left(total, total[last] - overlap)
            first = min(max(shared, bisect_left(total, total[last + 1] - size), first + 1), last)
