"""Text as it is indexed by words: one form of each letter, and pairs of characters where a language has no spaces."""

import re
import unicodedata
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

# Chinese, Japanese, Thai, Lao, Burmese and Khmer are written without spaces between words.
_UNSPACED: Final = (
    "\u3005-\u3007\u3021-\u3029\u3031-\u3035\u303b\u303c"  # marks of iteration, numerals
    "\u3040-\u309f\u30a0-\u30fa\u30fc-\u30ff\u31f0-\u31ff"  # Hiragana and Katakana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    "\u0e01-\u0e3a\u0e40-\u0e4e"  # Thai, without its digits and punctuation
    "\u0e81-\u0ece\u0edc-\u0edf"  # Lao
    "\u1000-\u103f\u1050-\u108f\u109a-\u109d\ua9e0-\ua9ef\ua9fa-\ua9fe\uaa60-\uaa76\uaa7a-\uaa7f"  # Burmese
    "\u1780-\u17d3\u17d7\u17dc\u17dd"  # Khmer
)
_RUN: Final = re.compile(f"[{_UNSPACED}]+")
_COMPATIBLE: Final = re.compile("[\ufb00-\ufdff\ufe70-\ufefc\uff10-\uff5a\uff66-\uffdc]+")
"""Letters and digits that stand for others: ligatures, Arabic forms, full and half width."""
# Written or left out as one likes, so that a word is the same with them and without. The vowel signs of Indic, Thai
# and other scripts are none of these, nor is what is part of a letter once it is composed.
_OPTIONAL: Final = re.compile(
    "["
    "\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\u302a-\u302f\ufe20-\ufe2f"  # accents
    "\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\ufb1e"  # Hebrew points and accents
    "\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed"  # Arabic, kashida
    "\u0898-\u089f\u08ca-\u08e1\u08e3-\u08ff\u0711\u0730-\u074a"  # more of it, Syriac
    "\u00ad\u061c\u200d-\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff"  # soft hyphens, joiners, directions
    "\u180b-\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef"  # variants of a character
    "]+"
)


def uniform(text: str) -> str:
    """Return a text with one spelling of each letter, composed and in its usual width; mostly the same text."""
    if text.isascii():
        return text
    return unicodedata.normalize("NFC", _COMPATIBLE.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text))


def plain(text: str) -> str:
    """Return a uniform text without the marks and invisible characters that a word may have or not."""
    return text if text.isascii() else _OPTIONAL.sub("", text)


def segmented(text: str) -> str:
    """Return a uniform text in which runs of characters without spaces are cut into overlapping pairs.

    The last character of a run follows by itself, so that every character begins one piece: a search for it alone is
    one for pieces that begin with it.
    """
    if text.isascii():
        return text
    return _RUN.sub(lambda run: f" {' '.join(pieces(run[0]))} ", text)


def pieces(run: str) -> list[str]:
    """Return each character of a run with the one after it, and the last alone."""
    characters = list(_characters(run))
    return [*map("".join, pairwise(characters)), characters[-1]]


def runs(text: str) -> Iterator[tuple[str, bool]]:
    """Yield the parts of a text, and of each whether it is written without spaces."""
    end = 0
    for found in _RUN.finditer(text):
        if found.start() > end:
            yield text[end : found.start()], False
        yield found[0], True
        end = found.end()
    if end < len(text):
        yield text[end:], False


def _characters(run: str) -> Iterator[str]:
    """Yield characters, each with the marks that follow it."""
    character = ""
    for each in run:
        if character and not unicodedata.category(each).startswith("M"):
            yield character
            character = ""
        character += each
    yield character
