"""The filter language, read to a condition on metadata.

A filter is an object: `{"year": {"$gte": 2020}, "lang": "en"}`. Its entries must all hold. A field is a path
of object keys joined by dots. Values compare within their type: numbers with numbers (2 equals 2.0), strings
with strings (by code point), booleans with booleans, null with null. A list matches if any of its elements
does, and a path goes through a list to the fields of its elements. A missing field matches only `$ne`, `$nin`,
`$not` and `{"$exists": false}`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Final

from service.errors import InvalidFilter, did_you_mean, shortened
from service.store.conditions import (
    FALSE,
    NULL,
    TRUE,
    All,
    AnyOf,
    Condition,
    Field,
    Not,
    Test,
    Value,
    above,
    below,
    between,
    contains,
    exists,
    one_of,
)
from service.store.document import LARGEST_INTEGER, SMALLEST_INTEGER, has_surrogate
from service.store.fields import parsed

MAX_DEPTH: Final = 20
MAX_TERMS: Final = 512  # each may read all values of a field

_LOWER: Final = {"$gt": ">", "$gte": ">="}
_UPPER: Final = {"$lt": "<", "$lte": "<="}
_FIELD_OPERATORS: Final = (
    *("$eq", "$ne", *_LOWER, *_UPPER, "$in", "$nin", "$contains", "$icontains", "$exists", "$not"),
)
_GROUP_OPERATORS: Final = ("$and", "$or", "$not")


def compile_filter(expression: Mapping[str, Any]) -> Condition:
    """Return the condition that a filter stands for; raises `InvalidFilter`."""
    return _Compiler().group(expression, "filter", 1)


class Filter:
    """A filter that is compiled once, by what uses it first; `InvalidFilter` is raised there.

    What finds documents by it leaves in `warnings` what of it can match nothing, as no document has such a field or
    value.
    """

    def __init__(self, expression: Mapping[str, Any]) -> None:
        self.expression = expression
        self.warnings: Sequence[str] = ()

    @classmethod
    def of(cls, expression: Mapping[str, Any] | None) -> Filter | None:
        """Return the filter of an expression, where there is one."""
        return None if expression is None else cls(expression)

    @cached_property
    def condition(self) -> Condition:
        """The condition that it stands for."""
        return compile_filter(self.expression)


AnyFilter = Mapping[str, Any] | Filter


def as_filter(filter_: AnyFilter) -> Filter:
    """Return a filter that may still be an expression."""
    return filter_ if isinstance(filter_, Filter) else Filter(filter_)


def compiled(filter_: AnyFilter | None) -> Filter | None:
    """Return a filter that is compiled, None where it matches all; raises `InvalidFilter`."""
    if filter_ is None or (asked := as_filter(filter_)).expression == {}:
        return None
    asked.condition  # noqa: B018 - raises what is wrong with it
    return asked


class _Compiler:
    """Compiles one filter."""

    def __init__(self) -> None:
        self._terms = 0

    def group(self, expression: object, where: str, depth: int) -> Condition:
        """Compile a whole filter: all its entries hold."""
        self._count(where, depth)
        if not isinstance(expression, Mapping):
            raise InvalidFilter(f'{where} must be an object such as {{"lang": "en"}}, not {_named(expression)}.')
        return _all([self._entry(key, value, where, depth) for key, value in expression.items()])

    def _entry(self, key: object, value: object, where: str, depth: int) -> Condition:
        if not isinstance(key, str):
            raise InvalidFilter(f"{where} has the key {shortened(key)}; fields and operators are strings.")
        here = f"{where}.{key[:60]}"
        match key:
            case "$and" | "$or":
                if not isinstance(value, list) or not value:
                    raise InvalidFilter(f"{here} takes a list of one or more filters, not {_named(value)}.")
                parts = [self.group(item, f"{here}[{i}]", depth + 1) for i, item in enumerate(value)]
                return _all(parts) if key == "$and" else AnyOf(parts)
            case "$not":
                if value == {}:
                    raise InvalidFilter(
                        f"{here} is empty: every document meets it, and so none its opposite. Give it a filter, as "
                        'in {"$not": {"lang": "en"}}.'
                    )
                return Not(self.group(value, here, depth + 1))
            case _ if key in _FIELD_OPERATORS:
                raise InvalidFilter(f'{where}: {key!r} belongs under a field, as in {{"year": {{{key!r}: ...}}}}.')
            case _ if key.startswith("$"):
                raise _unknown(key, where, _GROUP_OPERATORS, f" A field of that name is written '\\\\{key[:60]}'.")
        field = parsed(key, where)
        if isinstance(value, Mapping):
            return self._operators(field, value, here, depth + 1)
        return self._operator(field, "$eq", value, here, depth)

    def _operators(self, field: Field, operators: Mapping[Any, Any], where: str, depth: int) -> Condition:
        """Compile the operators of one field, which all hold."""
        self._count(where, depth)
        if not operators:
            raise InvalidFilter(f"{where} has no operator; give a value or one of {', '.join(_FIELD_OPERATORS)}.")
        parts = {name: self._operator(field, name, value, where, depth) for name, value in operators.items()}
        lower, upper = (next((name for name in bounds if name in parts), None) for bounds in (_LOWER, _UPPER))
        if lower and upper and isinstance(operators[lower], str) is isinstance(operators[upper], str):
            both = between(field, (_LOWER[lower], operators[lower]), (_UPPER[upper], operators[upper]))
            return _all([both, *(part for name, part in parts.items() if name not in (lower, upper))])
        return _all(list(parts.values()))

    def _operator(self, field: Field, name: object, operand: object, where: str, depth: int) -> Condition:
        self._count(where, depth)
        here = f"{where}.{str(name)[:60]}"
        match name:
            case "$eq":
                return one_of(field, [_value(operand, here)])
            case "$ne":
                return Not(one_of(field, [_value(operand, here)]))
            case "$in":
                return self._member(field, operand, here)
            case "$nin":
                return Not(self._member(field, operand, here))
            case "$gt" | "$gte":
                return above(field, _LOWER[name], _ordered(operand, here))
            case "$lt" | "$lte":
                return below(field, _UPPER[name], _ordered(operand, here))
            case "$contains" | "$icontains":
                part = _scalar(operand, here)
                if not isinstance(part, str):
                    raise InvalidFilter(
                        f"{here} takes a string, which is looked for in strings, not {_named(operand)}; an element "
                        "of a list is found by its value."
                    )
                return contains(field, part, caseless=name == "$icontains")
            case "$exists":
                if not isinstance(operand, bool):
                    raise InvalidFilter(f"{here} takes true or false, not {_named(operand)}.")
                return exists(field) if operand else Not(exists(field))
            case "$not":
                if not isinstance(operand, Mapping):
                    raise InvalidFilter(f'{here} takes operators, as in {{"$gt": 5}}, not {_named(operand)}.')
                return Not(self._operators(field, operand, here, depth + 1))
            case str() if name in _GROUP_OPERATORS:
                raise InvalidFilter(f"{where}: {name!r} combines whole filters; put it outside of the field.")
            case str() if not name.startswith("$"):
                meant = f"${name}"
                hint = f" Did you mean {meant!r}?" if meant in _FIELD_OPERATORS else ""
                raise InvalidFilter(
                    f"{where} holds {shortened(name)}, which is no operator; "
                    f"a nested field is written with a dot, as in 'author.name'.{hint}"
                )
            case _:
                raise _unknown(name, where, _FIELD_OPERATORS)

    def _member(self, field: Field, operand: object, where: str) -> Test:
        if not isinstance(operand, list):
            raise InvalidFilter(f"{where} takes a list of values, not {_named(operand)}.")
        return one_of(field, [_value(item, f"{where}[{i}]") for i, item in enumerate(operand)])

    def _count(self, where: str, depth: int) -> None:
        self._terms += 1
        if depth > MAX_DEPTH:
            raise InvalidFilter(f"{shortened(where)} is nested deeper than {MAX_DEPTH} levels; flatten the filter.")
        if self._terms > MAX_TERMS:
            raise InvalidFilter(
                f"the filter has more than {MAX_TERMS} terms; '$in' takes any number of values as one term."
            )


def _all(parts: list[Condition]) -> Condition:
    return parts[0] if len(parts) == 1 else All(parts)


def _value(operand: object, where: str) -> Value:
    """Return an operand as metadata has it stored."""
    value = _scalar(operand, where)
    if isinstance(value, bool):
        return TRUE if value else FALSE
    return NULL if value is None else value


def _ordered(operand: object, where: str) -> str | int | float:
    value = _scalar(operand, where)
    if value is None or isinstance(value, bool):
        raise InvalidFilter(f"{where} takes a number or a string, which have an order, not {_named(operand)}.")
    return value


def _scalar(operand: object, where: str) -> str | int | float | None:
    """Return an operand, checked to be a value that metadata can hold; raises `InvalidFilter`."""
    match operand:
        case None | bool():
            return operand
        case str():
            if "\0" in operand or has_surrogate(operand):
                raise InvalidFilter(f"{where}: no metadata holds a NUL character or half of a surrogate pair.")
            return operand
        case int():
            if not SMALLEST_INTEGER <= operand <= LARGEST_INTEGER:
                raise InvalidFilter(f"{where} is an integer beyond 64 bits, which no metadata holds.")
            return operand
        case float():
            if not math.isfinite(operand):
                raise InvalidFilter(f"{where} is {operand}; a number in a filter must be finite.")
            return operand
        case _:
            raise InvalidFilter(
                f"{where} takes a string, a number, true, false or null, not {_named(operand)}; "
                "an array is matched by its elements, several values by '$in'."
            )


def _unknown(name: object, where: str, operators: tuple[str, ...], more: str = "") -> InvalidFilter:
    hint = did_you_mean(str(name), operators)
    return InvalidFilter(
        f"{where}: unknown operator {shortened(name)}.{hint} Known here: {', '.join(operators)}.{more}"
    )


def _named(value: object) -> str:
    """Describe a value by its JSON type, for a message."""
    match value:
        case None:
            return "null"
        case bool():
            return json.dumps(value)
        case Mapping():
            return "an object"
        case list():
            return "a list" if value else "an empty list"
        case _:
            return shortened(value)
