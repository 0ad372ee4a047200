"""How the texts of a request are tokenized beside other requests: checked, in parts, and off the event loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Literal, TypeVar

from service.encoder.tokenizer import Side
from service.errors import EmptyInput, InvalidInput, Place, TooLarge

T = TypeVar("T", bound=Sequence[Any])

Cut = Side | Literal[False] | None
"""The side at which a text that is too long is cut; False refuses it, None does as the model is configured."""
Where = Callable[[int], Place]
"""Gives the place of an input by its index, for errors."""

# Tokenizing uses all cores by itself; the second thread serves others while one huge text is at work on the first.
TOKENIZING_THREADS: Final = 2
TOKENIZING: Final = ThreadPoolExecutor(max_workers=TOKENIZING_THREADS, thread_name_prefix="tokenizer")
"""Where texts are tokenized that take longer than a switch of threads."""
SHORT: Final = 2_048
"""Characters, or token ids, that are tokenized in less time than a switch of threads may take."""
_PART: Final = 16_384
"""Characters, or token ids, that are tokenized without a break: some milliseconds of work."""
MOST_CHARACTERS: Final = 1_000_000
"""Characters of a text that are tokenized, for each of which a tokenizer may take some 400 bytes meanwhile."""
BYTES_OF_A_TOKEN: Final = 4
"""Bytes of UTF-8 that a token stands for, by and large: most of an English word, or one character of Chinese."""


def parts(inputs: Sequence[T], size_of: Callable[[T], int] = len) -> Iterator[tuple[int, Sequence[T], int]]:
    """Cut a request into parts of about `_PART` characters or ids: the index of each part, the part, and its size.

    Parts of different requests take turns, so that a large request does not keep a small one waiting.
    """
    start = size = 0
    for place, item in enumerate(inputs):
        size += size_of(item)
        if size >= _PART or place == len(inputs) - 1:
            yield start, inputs[start : place + 1], size
            start, size = place + 1, 0


def tokens_of(text: str) -> int:
    """Return about how many tokens a text has, whatever it holds, without tokenizing it."""
    return (len(text) if text.isascii() else len(text.encode(errors="replace"))) // BYTES_OF_A_TOKEN


def beginning(text: str, cut: Cut, where: Place) -> str:
    """Return what is tokenized of a text: all of it, or `MOST_CHARACTERS` where its end is cut off anyway.

    Raises:
        TooLarge: it has more than that, and its end counts.
    """
    if len(text) <= MOST_CHARACTERS or cut == "right":
        return text[:MOST_CHARACTERS]
    raise too_large(text, where)


def too_large(text: str, where: Place) -> TooLarge:
    """Return the error of a text with more than `MOST_CHARACTERS`."""
    return TooLarge(
        f"{where} has {len(text)} characters, and up to {MOST_CHARACTERS} of a text are read. Split it, or send its "
        "beginning.",
        where=where,
        limit=MOST_CHARACTERS,
    )


def check_text(text: str, where: Place, purpose: str) -> None:
    """Refuse a text that is blank or no valid Unicode; raises `EmptyInput` or `InvalidInput`.

    Args:
        text: the text.
        where: its place.
        purpose: what it is for, such as `embed`.
    """
    if not text or text.isspace():
        what = "is empty" if not text else "has nothing but white space"
        detail = f"{where} {what}, so there is nothing to {purpose}. Leave it out or send a text."
        raise EmptyInput(detail, where=where)
    try:
        if not text.isascii():
            text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"{where} is not valid Unicode: {error.reason} at character {error.start}.", where=where
        ) from None
