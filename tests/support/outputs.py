"""Compares what a command printed with what a page shows, within what varies from run to run and CPU to CPU."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any, Final

VARYING: Final = frozenset({"created", "cursor", "memory_bytes", "texts_per_second"})
"""Members of JSON objects that must be there, whatever they hold."""
TOLERANCE: Final = 1e-3
"""For fractions: of a JSON value itself, of one in a text relative to it. CPUs round otherwise."""
ELLIPSIS: Final = "..."
"""In what a page shows: anything, or nothing. In JSON, at the end of an array or an object."""

_MEASURED: Final = re.compile(r"\d[\d.]*(?= (?:s|ms|documents/s|MB|GB|times)\b)|\d[\d.]*e[+-]\d+")
"""What a clock or the memory gave, and rounding errors."""
_BAR: Final = re.compile("[█▉▊▋▌▍▎▏]+")
_PART: Final = re.compile(r"\.\.\.|[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?|[^\s\d.+_-]+|[.+_-]")


def differs(expected: str, actual: str, language: str) -> bool:
    """Whether an output is another than the one shown: as JSON where that is the language, else as text."""
    if language == "json":
        return not _equal(_documents(_with_ellipses(expected)), _documents(actual))
    return not _matches(_parts(expected), _parts(actual))


def _with_ellipses(text: str) -> str:
    """JSON with `...` in it as JSON without: a last item, or a last member, of that name."""
    text = re.sub(r"\.\.\.(?=\s*\])", f'"{ELLIPSIS}"', text)
    return re.sub(r"\.\.\.(?=\s*\})", f'"{ELLIPSIS}": null', text)


def _documents(text: str) -> list[Any]:
    """JSON texts one after another, as the answers of several requests stand in one output."""
    found, decoder, rest = [], json.JSONDecoder(), text.strip()
    while rest:
        document, end = decoder.raw_decode(rest)
        found.append(document)
        rest = rest[end:].lstrip()
    return found


def _equal(expected: Any, actual: Any) -> bool:
    match expected, actual:
        case dict(), dict():
            wanted = {key: value for key, value in expected.items() if key != ELLIPSIS}
            if wanted.keys() - actual.keys() or (ELLIPSIS not in expected and actual.keys() - wanted.keys()):
                return False
            return all(key in VARYING or _equal(value, actual[key]) for key, value in wanted.items())
        case list(), list():
            if expected and expected[-1] == ELLIPSIS:
                expected = expected[:-1]
                actual = actual[: len(expected)]
            return len(expected) == len(actual) and all(map(_equal, expected, actual))
        case float(), int() | float():
            return math.isclose(expected, actual, abs_tol=TOLERANCE)
    return type(expected) is type(actual) and bool(expected == actual)


def _parts(text: str) -> list[str]:
    """Words and numbers, without the space between them, bars, and what was measured."""
    return _PART.findall(_BAR.sub("", _MEASURED.sub("N", text)))


def _matches(expected: Sequence[str], actual: Sequence[str]) -> bool:
    """Whether the parts between ellipses come one after another, the first at the start, the last at the end."""
    begin, *others = _split(expected)
    if not _begins(actual, begin):
        return False
    if not others:
        return len(actual) == len(begin)
    place, end = len(begin), others.pop()
    for middle in others:  # where each comes first leaves the most room for the next
        while place <= len(actual) and not _begins(actual[place:], middle):
            place += 1
        place += len(middle)
    return place + len(end) <= len(actual) and _begins(actual[len(actual) - len(end) :], end)


def _split(parts: Sequence[str]) -> list[list[str]]:
    found: list[list[str]] = [[]]
    for part in parts:
        if part == ELLIPSIS:
            found.append([])
        else:
            found[-1].append(part)
    return found


def _begins(actual: Sequence[str], expected: Sequence[str]) -> bool:
    return len(expected) <= len(actual) and all(map(_same, expected, actual))


def _same(expected: str, actual: str) -> bool:
    """Whether two parts are equal, numbers with decimals to within two of the last that is shown, or a thousandth."""
    if expected == actual:
        return True
    decimals = re.fullmatch(r"[+-]?\d+\.(\d+)", expected)
    if decimals is None or re.fullmatch(r"[+-]?\d+\.\d+", actual) is None:
        return False
    within = max(2.01 * 0.1 ** len(decimals[1]), TOLERANCE * abs(float(expected)))
    return abs(float(expected) - float(actual)) <= within
