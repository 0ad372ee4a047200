"""The filter language, compiled to SQL over the JSON text in a `metadata` column.

A filter is an object: `{"year": {"$gte": 2020}, "lang": "en"}`. Its entries must all hold. A field is a path
of object keys joined by dots. Values compare within their type: numbers with numbers (2 equals 2.0), strings
with strings (by code point), booleans with booleans, null with null. An array matches if any of its elements
does. A missing field matches only `$ne`, `$nin`, `$not` and `{"$exists": false}`.
"""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from service.errors import InvalidFilter, did_you_mean, shortened
from service.store.document import LARGEST_INTEGER, SMALLEST_INTEGER, has_surrogate

MAX_DEPTH: Final = 20
MAX_TERMS: Final = 512  # SQLite allows 1000 levels in an expression, and each term of a chain of ANDs is a level

_ORDERINGS: Final = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_FIELD_OPERATORS: Final = ("$eq", "$ne", *_ORDERINGS, "$in", "$nin", "$exists", "$not")
_GROUP_OPERATORS: Final = ("$and", "$or", "$not")

_NUMBER: Final = "item.type IN ('integer', 'real')"
_STRING: Final = "item.type = 'text'"


def compile_filter(expression: Mapping[str, Any]) -> tuple[str, list[str | int]]:
    """Return an SQL condition, which is never NULL, and its parameters; raises `InvalidFilter`."""
    compiler = _Compiler()
    return compiler.group(expression, "filter", 1), compiler.parameters


class _Compiler:
    """Compiles one filter. SQL is composed in the order in which its parameters are appended."""

    def __init__(self) -> None:
        self.parameters: list[str | int] = []
        self._terms = 0

    def group(self, expression: object, where: str, depth: int) -> str:
        """Compile a whole filter to the AND of its entries."""
        self._count(where, depth)
        if not isinstance(expression, Mapping):
            raise InvalidFilter(f'{where} must be an object such as {{"lang": "en"}}, not {_named(expression)}.')
        return _joined("AND", [self._entry(key, value, where, depth) for key, value in expression.items()])

    def _entry(self, key: object, value: object, where: str, depth: int) -> str:
        if not isinstance(key, str):
            raise InvalidFilter(f"{where} has the key {shortened(key)}; fields and operators are strings.")
        here = f"{where}.{key[:60]}"
        match key:
            case "$and" | "$or":
                if not isinstance(value, list) or not value:
                    raise InvalidFilter(f"{here} takes a list of one or more filters, not {_named(value)}.")
                parts = [self.group(item, f"{here}[{i}]", depth + 1) for i, item in enumerate(value)]
                return _joined(key[1:].upper(), parts)
            case "$not":
                return f"NOT {self.group(value, here, depth + 1)}"
            case _ if key in _FIELD_OPERATORS:
                raise InvalidFilter(f'{where}: {key!r} belongs under a field, as in {{"year": {{{key!r}: ...}}}}.')
            case _ if key.startswith("$"):
                raise _unknown(key, where, _GROUP_OPERATORS)
        path = _path(key, where)
        if isinstance(value, Mapping):
            return self._operators(path, value, here, depth + 1)
        return self._operator(path, "$eq", value, here, depth)

    def _operators(self, path: str, operators: Mapping[Any, Any], where: str, depth: int) -> str:
        """Compile the operators of one field to their AND."""
        self._count(where, depth)
        if not operators:
            raise InvalidFilter(f"{where} has no operator; give a value or one of {', '.join(_FIELD_OPERATORS)}.")
        return _joined("AND", [self._operator(path, name, value, where, depth) for name, value in operators.items()])

    def _operator(self, path: str, name: object, operand: object, where: str, depth: int) -> str:
        self._count(where, depth)
        here = f"{where}.{str(name)[:60]}"
        match name:
            case "$eq":
                return self._any(path, lambda: self._equal(operand, here))
            case "$ne":
                return f"NOT {self._any(path, lambda: self._equal(operand, here))}"
            case "$in":
                return self._any(path, lambda: self._member(operand, here))
            case "$nin":
                return f"NOT {self._any(path, lambda: self._member(operand, here))}"
            case "$gt" | "$gte" | "$lt" | "$lte":
                return self._any(path, lambda: self._ordered(_ORDERINGS[name], operand, here))
            case "$exists":
                if not isinstance(operand, bool):
                    raise InvalidFilter(f"{here} takes true or false, not {_named(operand)}.")
                self.parameters.append(path)
                return f"json_type(metadata, ?) IS {'NOT ' if operand else ''}NULL"
            case "$not":
                if not isinstance(operand, Mapping):
                    raise InvalidFilter(f'{here} takes operators, as in {{"$gt": 5}}, not {_named(operand)}.')
                return f"NOT {self._operators(path, operand, here, depth + 1)}"
            case str() if name in _GROUP_OPERATORS:
                raise InvalidFilter(f"{where}: {name!r} combines whole filters; put it outside of the field.")
            case str() if not name.startswith("$"):
                raise InvalidFilter(
                    f"{where} holds {shortened(name)}, which is no operator; "
                    "a nested field is written with a dot, as in 'author.name'."
                )
            case _:
                raise _unknown(name, where, _FIELD_OPERATORS)

    def _any(self, path: str, condition: Callable[[], str]) -> str:
        """Compile "the value at the path, or any element where it is an array, meets the condition".

        `json_each` yields one row for a scalar, one for each element of an array, and none for a missing field. It
        would also yield the members of an object, hence the test of the type.
        """
        self.parameters += [path, path]
        return (
            "EXISTS (SELECT 1 FROM json_each(metadata, ?) AS item "
            f"WHERE json_type(metadata, ?) <> 'object' AND {condition()})"
        )

    def _equal(self, operand: object, where: str) -> str:
        match _scalar(operand, where):
            case None:
                return "item.type = 'null'"
            case bool(flag):
                return f"item.type = '{json.dumps(flag)}'"
            case value:
                return self._compared("=", value)

    def _ordered(self, comparison: str, operand: object, where: str) -> str:
        value = _scalar(operand, where)
        if value is None or isinstance(value, bool):
            raise InvalidFilter(f"{where} takes a number or a string, which have an order, not {_named(operand)}.")
        return self._compared(comparison, value)

    def _compared(self, comparison: str, value: str | int | float) -> str:
        if isinstance(value, str):
            self.parameters.append(value)
            return f"{_STRING} AND item.value {comparison} ?"
        # As JSON, so that the operand is rounded by the same code as the metadata.
        self.parameters.append(json.dumps(value))
        return f"{_NUMBER} AND item.value {comparison} json_extract(?, '$')"

    def _member(self, operand: object, where: str) -> str:
        if not isinstance(operand, list):
            raise InvalidFilter(f"{where} takes a list of values, not {_named(operand)}.")
        values = [_scalar(item, f"{where}[{i}]") for i, item in enumerate(operand)]
        literals = {json.dumps(value) for value in values if value is None or isinstance(value, bool)}
        alternatives = [f"item.type = '{literal}'" for literal in sorted(literals)]
        strings = [value for value in values if isinstance(value, str)]
        numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
        for type_test, members in ((_STRING, strings), (_NUMBER, numbers)):
            if members:
                # One parameter for any number of members, which SQLite reads into a sorted set once a query.
                self.parameters.append(json.dumps(members, ensure_ascii=False))
                alternatives.append(f"{type_test} AND item.value IN (SELECT value FROM json_each(?))")
        return _joined("OR", alternatives)

    def _count(self, where: str, depth: int) -> None:
        self._terms += 1
        if depth > MAX_DEPTH:
            raise InvalidFilter(f"{shortened(where)} is nested deeper than {MAX_DEPTH} levels; flatten the filter.")
        if self._terms > MAX_TERMS:
            raise InvalidFilter(
                f"the filter has more than {MAX_TERMS} terms; '$in' takes any number of values as one term."
            )


def _joined(word: str, parts: list[str]) -> str:
    """Return the AND (true where empty) or the OR (false where empty) of the parts, in parentheses."""
    return f"({f' {word} '.join(parts)})" if parts else str(int(word == "AND"))


def _path(field: str, where: str) -> str:
    """Return a field as a JSON path of SQLite, with every key quoted."""
    keys = field.split(".")
    if not all(keys):
        raise InvalidFilter(f"{where}: field {shortened(field)} has an empty part; write keys joined by single dots.")
    if has_surrogate(field) or any(character in '"\\' or character < " " for character in field):
        raise InvalidFilter(
            f"{where}: field {shortened(field)} cannot be filtered by; a key in a filter holds no "
            "quotation mark, backslash, control character or half of a surrogate pair."
        )
    return "$" + "".join(f'."{key}"' for key in keys)


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


def _unknown(name: object, where: str, operators: tuple[str, ...]) -> InvalidFilter:
    hint = did_you_mean(str(name), operators)
    return InvalidFilter(f"{where}: unknown operator {shortened(name)}.{hint} Known here: {', '.join(operators)}.")


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
