"""What a filter asks for: tests of fields, joined by all, any and not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

Field = tuple[str, ...]
"""The keys that lead to a value, each in the object that the one before it leads to."""
Kind = Literal["null", "boolean", "number", "string"]
Value = str | int | float | bytes
"""A value as it is found: numbers and strings as themselves, what has no order as its JSON in bytes.

SQLite keeps the values of a field apart by type: numbers come first, then strings, then bytes.
"""
Lookup = tuple[str, Sequence[Value]]
"""An SQL condition on `entry.value` that is never NULL, and its parameters."""

NULL: Final = b"null"
TRUE: Final = b"true"
FALSE: Final = b"false"
LIST: Final = b"[]"
OBJECT: Final = b"{}"

OF_KIND: Final[dict[Kind, str]] = {
    "null": f"entry.value = x'{NULL.hex()}'",
    "boolean": f"entry.value IN (x'{TRUE.hex()}', x'{FALSE.hex()}')",
    "number": "entry.value < ''",
    "string": "entry.value >= '' AND entry.value < x''",
}
"""SQL conditions for the values of each kind."""
_MOST_MEMBERS: Final = 500
"""Values that one statement looks for."""


@dataclass(frozen=True, slots=True)
class Test:
    """A test that a document passes if any value under a field does; one of the lookups finds such a value.

    Args:
        field: the field.
        kinds: the kinds of value that can pass; none where the test is not about values.
        lookups: what finds them.
        scans: whether the lookups read all strings under the field, instead of finding values by the index.
    """

    field: Field
    kinds: frozenset[Kind]
    lookups: Sequence[Lookup]
    scans: bool = False


@dataclass(frozen=True, slots=True)
class Between:
    """Two tests with a bound each, and the test with both bounds, which is one that a single value passes.

    The two differ where a field has several values in a document, one above the lower bound and another below the
    upper one.
    """

    lower: Test
    upper: Test
    both: Test


@dataclass(frozen=True, slots=True)
class All:
    """A condition that holds where all its parts do."""

    parts: Sequence[Condition]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """A condition that holds where one of its parts does."""

    parts: Sequence[Condition]


@dataclass(frozen=True, slots=True)
class Not:
    """A condition that holds where another does not."""

    part: Condition


Condition = Test | Between | All | AnyOf | Not


def exists(field: Field) -> Test:
    """Return the test whether a field is there."""
    return Test(field, frozenset(), [("TRUE", ())])


def one_of(field: Field, values: Sequence[Value]) -> Test:
    """Return the test whether a value equals one of these."""
    groups = [values[start : start + _MOST_MEMBERS] for start in range(0, len(values), _MOST_MEMBERS)]
    lookups = [(f"entry.value IN ({', '.join('?' * len(group))})", group) for group in groups]
    return Test(field, frozenset(map(_kind, values)), lookups)


def above(field: Field, operator: str, bound: str | int | float) -> Test:
    """Return the test whether a value of the bound's kind is above it; `operator` is `>` or `>=`."""
    ceiling = "x''" if isinstance(bound, str) else "''"
    lookup = (f"entry.value {operator} ? AND entry.value < {ceiling}", [bound])
    return Test(field, frozenset([_kind(bound)]), [lookup])


def below(field: Field, operator: str, bound: str | int | float) -> Test:
    """Return the test whether a value of the bound's kind is below it; `operator` is `<` or `<=`."""
    floor = "entry.value >= '' AND " if isinstance(bound, str) else ""
    return Test(field, frozenset([_kind(bound)]), [(f"{floor}entry.value {operator} ?", [bound])])


def between(field: Field, lower: tuple[str, str | int | float], upper: tuple[str, str | int | float]) -> Between:
    """Return the condition of two bounds, each an operator and a value, of one kind."""
    lookup = (f"entry.value {lower[0]} ? AND entry.value {upper[0]} ?", [lower[1], upper[1]])
    return Between(above(field, *lower), below(field, *upper), Test(field, frozenset([_kind(lower[1])]), [lookup]))


def contains(field: Field, part: str, *, caseless: bool) -> Test:
    """Return the test whether a string holds another, with all differences of case or none."""
    lookup = ("instr(casefold(entry.value), ?)", [part.casefold()]) if caseless else ("instr(entry.value, ?)", [part])
    return Test(field, frozenset(["string"]), [(f"{OF_KIND['string']} AND {lookup[0]}", lookup[1])], scans=True)


def tests_of(condition: Condition) -> list[Test]:
    """Return all tests of a condition, in order."""
    match condition:
        case Test():
            return [condition]
        case Between(both=test):
            return [test]
        case Not(part):
            return tests_of(part)
        case All(parts) | AnyOf(parts):
            return [test for part in parts for test in tests_of(part)]


def _kind(value: Value) -> Kind:
    match value:
        case bytes():
            return "null" if value == NULL else "boolean"
        case str():
            return "string"
        case _:
            return "number"
