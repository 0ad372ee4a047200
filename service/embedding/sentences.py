"""Splits a text into sentences by punctuation and a few words, deterministically.

Made for prose in languages that end sentences as English, German, French, Spanish, Chinese, Japanese or Hindi do. In
doubt two sentences stay together, since a long span keeps its meaning and half a sentence does not.
"""

from __future__ import annotations

from typing import Final

import regex

from service.embedding.spans import Span

# Continues a character of several code points, so no sentence begins with it.
_JOINED: Final = r"[\p{GCB=Extend}\p{GCB=ZWJ}\p{GCB=SpacingMark}]"
_SPACE: Final = rf"\s(?!{_JOINED})"
# These end a sentence if what follows agrees; all other sentence terminals of Unicode always do.
_SOFT: Final = r"[.!?\u2026\u203c\u203d\u2047-\u2049\uff0e]"
_HARD: Final = rf"[\p{{Sentence_Terminal}}--{_SOFT}]"
_CJK: Final = r"[\p{Han}\p{Hiragana}\p{Katakana}]"

_CANDIDATE: Final = regex.compile(
    rf"""
    (?: (?P<break> \n[^\S\n]*+\n | [\f\u2029] | \n(?= [^\S\n]*+ (?: [-*\u2022\u2023\u2013] | \d{{1,3}}[.)] ) \s ) )
      | (?<! \p{{Sentence_Terminal}} | {_SOFT} )  # a run of marks is looked at once, from its first
        (?: (?P<hard> {_SOFT}*+ {_HARD} (?: {_HARD} | {_SOFT} )*+ [\p{{Pe}}\p{{Pf}}"']*+ )
          | (?P<soft> {_SOFT}++ ) (?P<close> [\p{{Pe}}\p{{Pf}}\p{{Pi}}"']*+ ) (?= {_SPACE} | \Z )
          | (?<= {_CJK} ) (?P<cjk> {_SOFT}++ ) (?= {_CJK} ) )
    ) (?! {_JOINED} )
    """,
    regex.VERSION1 | regex.VERBOSE,
)
# Nothing combines with a line break or a tab.
_BEGINS_JOINED: Final = regex.compile(rf"(?<![\p{{GCB=Control}}\p{{GCB=CR}}\p{{GCB=LF}}]){_JOINED}")
# 「はい。」と言った: the quotation is part of a longer sentence.
_QUOTED_ON: Final = regex.compile(r"(?<=[\p{Pe}])\p{Hiragana}", regex.VERSION1)
_NEXT: Final = regex.compile(
    rf"(?:{_SPACE})*+[\p{{Ps}}\p{{Pi}}\"'\u00bf\u00a1]*+(?P<word>[\p{{L}}\p{{M}}\p{{N}}]+|.?)"
)
_LAST_WORD: Final = regex.compile(r"[^\s\p{Ps}\p{Pi}\p{Pd}\"'/]*\Z")
_LONGEST_WORD: Final = 16
_SPACES: Final = regex.compile(r"\s*+")
_INITIALS: Final = regex.compile(r"(?:\p{L}\.)*\p{L}")
_LIST_MARKER: Final = regex.compile(r"\d{1,3}(?:\.\d{1,3})*|[A-Za-z]|(?i:x{0,3}(?:ix|iv|v?i{0,3}))")
_UPPER: Final = regex.compile(r"\p{Lu}")


def _words(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Words whose full stop ends no sentence: always; before a number; unless a word follows that often begins one.
_GO_ON: Final = _words(
    "mr mrs ms mx messrs dr prof rev hon gen col maj capt cmdr lt sgt gov sen rep supt mt mme mlle sra srta dra "
    "e.g i.e eg ie cf viz vs approx ca resp incl esp z.b d.h u.a bzw ggf vgl hr fr frl sog p.ex"
)
_BEFORE_NUMBERS: Final = _words(
    "no nos nr fig figs eq eqs sec secs ch chap vol vols p pp para ref refs ver ed "
    "jan feb mar apr jun jul aug sep sept oct nov dec"
)
_MAY_END: Final = _words("al inc ltd co corp jr sr bros dept univ st ave blvd rd ft hrs ph.d")
_STARTERS: Final = _words(
    "a an the this that these those there here it its he she we they i you his her their our my your "
    "in on at for from with by as if when while after before since but and or so yet however then thus "
    "what who why how where which is are was were der die das ein eine es er sie wir und le la les un une il elle "
    "el los las una"
)


def sentences(text: str) -> list[Span]:
    """Return the sentences of a text in order, without the white space around them.

    Every other character is in exactly one sentence, and none begins or ends inside a combined character. A blank
    line ends a sentence, and so does a line break before a list item; any other line break is a space.
    """
    cased = _UPPER.search(text) is not None
    found = []
    start = 0
    for end in _CANDIDATE.finditer(text):
        if _ends(text, start, end, cased):
            found.append(_trimmed(text, start, end.end()))
            start = end.end()
    found.append(_trimmed(text, start, len(text)))
    return [(first, last) for first, last in found if first < last]


def _ends(text: str, start: int, end: regex.Match[str], cased: bool) -> bool:
    """Return whether the sentence from `start` ends here. In a text without upper case, lower case means nothing."""
    if end["hard"]:
        return _QUOTED_ON.match(text, end.end()) is None
    if not end["soft"]:
        return True
    follows = _NEXT.match(text, end.end())
    word = follows["word"] if follows else ""
    if not word:
        return True
    if word in ".!?\u2026,;:)]}%":
        return False
    goes_on = cased and word[0].islower()
    if end["soft"][-1] not in ".\u2026\uff0e":
        return not (goes_on and end["close"])
    if goes_on:
        return False
    return end["soft"] != "." or bool(end["close"]) or not _abbreviated(text, start, end.start(), word)


def _abbreviated(text: str, start: int, stop: int, following: str) -> bool:
    """Return whether the full stop at `stop` belongs to the word before it, or to the number of a list item."""
    match = _LAST_WORD.search(text, max(start, stop - _LONGEST_WORD), stop)
    word = match[0] if match else ""
    begins = _SPACES.match(text, start)
    if _LIST_MARKER.fullmatch(word) and match and begins and begins.end() >= match.start():
        return True
    word = word.lower()
    if word in _GO_ON:
        return True
    if word in _BEFORE_NUMBERS:
        return following[0].isdigit()
    if word in _MAY_END or _INITIALS.fullmatch(word):
        return following.lower() not in _STARTERS
    return False


def _trimmed(text: str, start: int, end: int) -> Span:
    """Strip white space from both ends, except a space that a combining character needs."""
    part = text[start:end]
    first = end - len(part.lstrip())
    if first > start and _BEGINS_JOINED.match(text, first):
        first -= 1
    return first, start + len(part.rstrip())
