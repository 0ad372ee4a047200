"""What a filter asks for: tests of fields, joined by all, any and not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, Literal

Field = tuple[str, ...]
"""The keys that lead to a value, each in the object that the one before it leads to."""
Kind = Literal["null", "boolean", "number", "string"]
Value = str | int | float | bytes
"""A value as it is found: numbers and strings as themselves (see `indexed`), what has no order as its JSON in bytes.

SQLite keeps the values of a field apart by type: numbers come first, then strings, then bytes.
"""
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
_LONGEST: Final = 200
"""Characters of the longest string that is in the index as it is."""
_SHORT: Final = "instr(entry.value, char(0)) = 0"


@dataclass(frozen=True, slots=True)
class Lookup:
    """What finds values in a table.

    Args:
        condition: in SQL, on `entry.value`; it is never NULL.
        parameters: those of the condition.
        table: `field_values`, or `long_values`, which has the whole of long strings.
    """

    condition: str
    parameters: Sequence[Value]
    table: Literal["field_values", "long_values"] = "field_values"


@dataclass(frozen=True, slots=True)
class Exists:
    """Asks for any value."""


@dataclass(frozen=True, slots=True)
class OneOf:
    """Asks for a value that equals one of these."""

    values: Sequence[Value]


@dataclass(frozen=True, slots=True)
class Bound:
    """Asks for a value of the bound's kind on one side of it; `operator` is `>`, `>=`, `<` or `<=`."""

    operator: str
    value: str | int | float


@dataclass(frozen=True, slots=True)
class Within:
    """Asks for a single value within both bounds."""

    lower: Bound
    upper: Bound


@dataclass(frozen=True, slots=True)
class Holds:
    """Asks for a string that holds another, with all differences of case or none."""

    part: str
    caseless: bool


Asked = Exists | OneOf | Bound | Within | Holds


@dataclass(frozen=True, slots=True)
class Test:
    """A test that a document passes if any value under a field does; one of the lookups finds such a value.

    Args:
        field: the field.
        asked: what of a value is asked, for whatever does not look it up in SQL.
        kinds: the kinds of value that can pass; none where the test is not about values.
        lookups: what finds them.
        scans: whether the lookups read all strings under the field, instead of finding values by the index.
    """

    field: Field
    asked: Asked
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


def indexed(text: str) -> str:
    """Return a string as it is in the index, which has the beginning and a digest of a long one.

    No string in metadata holds the NUL between the two, so that each stays different from all others and, as far as
    its beginning tells, in order.
    """
    if len(text) <= _LONGEST:
        return text
    return f"{text[:_LONGEST]}\0{blake2b(text.encode(), digest_size=16).hexdigest()}"


def exists(field: Field) -> Test:
    """Return the test whether a field is there."""
    return Test(field, Exists(), frozenset(), [Lookup("TRUE", ())])


def one_of(field: Field, values: Sequence[Value]) -> Test:
    """Return the test whether a value equals one of these."""
    found = [indexed(value) if isinstance(value, str) else value for value in values]
    groups = [found[start : start + _MOST_MEMBERS] for start in range(0, len(found), _MOST_MEMBERS)]
    lookups = [Lookup(f"entry.value IN ({', '.join('?' * len(group))})", group) for group in groups]
    return Test(field, OneOf(values), frozenset(map(_kind, values)), lookups)


def above(field: Field, operator: str, bound: str | int | float) -> Test:
    """Return the test whether a value of the bound's kind is above it; `operator` is `>` or `>=`."""
    ceiling = "x''" if isinstance(bound, str) else "''"
    return _bounded(field, Bound(operator, bound), f"entry.value {operator} ? AND entry.value < {ceiling}", [bound])


def below(field: Field, operator: str, bound: str | int | float) -> Test:
    """Return the test whether a value of the bound's kind is below it; `operator` is `<` or `<=`."""
    floor = "entry.value >= '' AND " if isinstance(bound, str) else ""
    return _bounded(field, Bound(operator, bound), f"{floor}entry.value {operator} ?", [bound])


def between(field: Field, lower: tuple[str, str | int | float], upper: tuple[str, str | int | float]) -> Between:
    """Return the condition of two bounds, each an operator and a value, of one kind."""
    asked = Within(Bound(*lower), Bound(*upper))
    both = _bounded(field, asked, f"entry.value {lower[0]} ? AND entry.value {upper[0]} ?", [lower[1], upper[1]])
    return Between(above(field, *lower), below(field, *upper), both)


def contains(field: Field, part: str, *, caseless: bool) -> Test:
    """Return the test whether a string holds another, with all differences of case or none."""
    asked = Holds(part, caseless)
    holds, part = (
        ("instr(casefold(entry.value), ?)", part.casefold()) if caseless else ("instr(entry.value, ?)", part)
    )
    lookups = _in_whole(f"{OF_KIND['string']} AND {holds}", [part])
    return Test(field, asked, frozenset(["string"]), lookups, scans=True)


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


def certain(condition: Condition) -> bool | None:
    """Return whether a condition holds for every document or for none by its form alone; None for neither.

    An empty filter holds for every one, and a test for one of no values for none. Two tests that between them leave
    nothing out, such as of a field that is there or not, are not told.
    """
    match condition:
        case Test(lookups=lookups):
            return None if lookups else False
        case Between():
            return None
        case Not(part):
            opposite = certain(part)
            return None if opposite is None else not opposite
        case All(parts):
            found = [certain(part) for part in parts]
            return False if False in found else None if None in found else True
        case AnyOf(parts):
            found = [certain(part) for part in parts]
            return True if True in found else None if None in found else False


def _bounded(field: Field, asked: Asked, condition: str, bounds: Sequence[str | int | float]) -> Test:
    long = any(isinstance(bound, str) and len(bound) > _LONGEST for bound in bounds)
    lookups = _in_whole(condition, bounds) if long else [Lookup(condition, bounds)]
    return Test(field, asked, frozenset(map(_kind, bounds)), lookups)


def _in_whole(condition: str, parameters: Sequence[Value]) -> list[Lookup]:
    """Return the lookups of values by a condition for which the beginning of a long string does not do."""
    return [Lookup(f"{condition} AND {_SHORT}", parameters), Lookup(condition, parameters, "long_values")]


def _kind(value: Value) -> Kind:
    match value:
        case bytes():
            return "null" if value == NULL else "boolean"
        case str():
            return "string"
        case _:
            return "number"
