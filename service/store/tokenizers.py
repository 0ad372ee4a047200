"""How texts become the terms of a keyword index, by name: SQLite's tokenizers, and how a query is put to each."""

import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar, Final, Literal

from service.errors import InvalidInput, Place, TooLong, shortened
from service.store.segmentation import pieces, plain, runs, segmented, uniform

MOST_TERMS: Final = 1024
"""Distinct terms of one query."""
# Vowel signs and tone marks (M) are parts of words, which they are not for SQLite unless told; those that choose the
# looks of an emoji are not.
_WORDS: Final = "unicode61 remove_diacritics 2 categories 'L* M* N* Co' separators '\ufe0e\ufe0f'"


class Tokenizer(ABC):
    """One way to make terms of texts. Compared by identity."""

    name: ClassVar[Any]
    """As collections spell it."""
    summary: ClassVar[str]
    declaration: ClassVar[str]
    """The value of FTS5's option `tokenize`."""

    @abstractmethod
    def indexed(self, text: str) -> str:
        """Return a document's text as FTS5 is to read it."""

    @abstractmethod
    def terms(self, query: str, where: Place | None = None) -> list[str]:
        """Return the distinct terms of a query as FTS5's query language has them; none where it has no word.

        Whatever the query holds is taken literally. `where` is its place for errors.
        Raises `InvalidInput` where the query cannot find anything.
        """


class Words(Tokenizer):
    """Words without case and diacritics; pairs of characters in languages without spaces."""

    name: ClassVar[Literal["unicode61"]] = "unicode61"
    summary = "words, without case and diacritics"
    declaration = _WORDS

    def indexed(self, text: str) -> str:
        """Return a document's text in uniform letters, and cut into pairs where it has no spaces."""
        return segmented(plain(uniform(text)))

    def terms(self, query: str, where: Place | None = None) -> list[str]:
        """Return the words of a query; of a run without spaces its pairs, or what begins with its one character."""
        terms = []
        for word in _words(plain(uniform(query))):
            for part, unspaced in runs(word):
                if not unspaced:
                    terms.append(_quoted(part))
                elif pairs := pieces(part)[:-1]:
                    terms += map(_quoted, pairs)
                else:
                    terms.append(f"{_quoted(part)} *")
        return _distinct(terms)


class Stems(Words):
    """English words by their stems."""

    name: ClassVar[Literal["porter"]] = "porter"  # type: ignore[assignment]
    summary = "the same by the stems of English words: 'mills' finds 'milling'"
    declaration = f"porter {_WORDS}"


class Substrings(Tokenizer):
    """Any three characters in a row."""

    name: ClassVar[Literal["trigram"]] = "trigram"
    summary = "any part of a word from three characters on, in any script"
    declaration = "trigram"

    def indexed(self, text: str) -> str:
        """Return a document's text in uniform letters."""
        return uniform(text)

    def terms(self, query: str, where: Place | None = None) -> list[str]:
        """Return what white space parts in a query, from three characters on."""
        words = uniform(query.replace("\0", " ")).split()
        terms = _distinct(_quoted(word) for word in words if len(word) >= 3)
        if words and not terms:
            raise InvalidInput(
                f"{where or 'the query'} is {shortened(query)}: this collection's tokenizer, 'trigram', finds parts "
                "of words from three characters on. Ask for a longer one, or of a collection with 'unicode61'.",
                where=where,
            )
        return terms


UNICODE61: Final = Words()
TOKENIZERS: Final[dict[str, Tokenizer]] = {each.name: each for each in (UNICODE61, Stems(), Substrings())}


def limited(terms: list[str], where: Place | None, *, truncate: bool) -> list[str]:
    """Return terms that are not too many, or with `truncate` the first of them; raises `TooLong`."""
    if len(terms) > MOST_TERMS and not truncate:
        raise TooLong(
            f"{where or 'the query'} has {len(terms)} different words and a keyword search takes {MOST_TERMS}; "
            "shorten it, or set truncate to use the first ones.",
            where=where,
            length=len(terms),
            limit=MOST_TERMS,
        )
    return terms[:MOST_TERMS]


def _words(text: str) -> list[str]:
    """Split a text at what is no part of a word for any version of Unicode, since SQLite has one of its own."""
    kept = "".join(each if _of_a_word(each) else " " for each in text)
    return [word for word in kept.split() if not all(unicodedata.category(each).startswith("M") for each in word)]


def _of_a_word(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] in "LMN" or category in ("Co", "Cn")  # Cn: assigned by a later version


def _quoted(term: str) -> str:
    return '"' + term.replace('"', '""') + '"'


def _distinct(terms: Iterable[str]) -> list[str]:
    # Not by case folding, in which ß is ss, as it is not for SQLite.
    return list({term.lower(): term for term in terms}.values())
