"""The filter language in Milvus: what is stored of metadata for it, and the expressions that ask for that.

An expression of Milvus on metadata as JSON would answer otherwise than the language says where a field is missing,
null, a list or within one. So each row has the terms of its metadata, digests of a field and a value, of a field and
a kind, and of a field alone, and the lowest and highest number and string of each field. A filter becomes tests of
these, which hold exactly where it does.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final

from service.collections.milvus.schema import BOUNDS, EVERY, MOST_JSON, MOST_TERMS, TERMS
from service.errors import InvalidDocument, InvalidFilter
from service.store.conditions import (
    FALSE,
    LIST,
    NULL,
    OBJECT,
    TRUE,
    All,
    AnyOf,
    Between,
    Bound,
    Condition,
    Exists,
    Field,
    Holds,
    Not,
    OneOf,
    Test,
    Value,
    Within,
)
from service.store.fields import spelled

LONGEST_BOUND: Final = 128
"""Bytes of the beginning of a string that is compared by its order."""
_NOTHING: Final = f"not ({EVERY})"
_CONTAINS: Final = "2.5"


def indexed_terms(document_id: str, metadata: Mapping[str, Any]) -> tuple[list[str], dict[str, list[str]]]:
    """Return the terms of metadata, and the lowest and highest of each field's numbers and strings.

    Raises `InvalidDocument` where Milvus does not hold so many.
    """
    terms: dict[str, None] = {}
    bounds: dict[str, list[str]] = {}
    for field, value in _values(metadata, ()):
        terms[_digest(field, "exists")] = None
        if value in (LIST, OBJECT) and isinstance(value, bytes):
            continue
        terms[_of_value(field, value)] = None
        if isinstance(value, bytes):
            continue
        terms[_of_kind(field, value)] = None
        key, encoded = _bounds_key(field, value), _ordered(value)
        lowest, highest = bounds.get(key, [encoded, encoded])
        bounds[key] = [min(lowest, encoded), max(highest, encoded)]
    if len(terms) > MOST_TERMS:
        raise InvalidDocument(
            f"document {document_id!r}: its metadata has so many fields and values that filters would need "
            f"{len(terms)} terms, and Milvus holds {MOST_TERMS} a document. Leave some out, or join them to a string."
        )
    bounds = {key: [lowest[:_MOST_BOUND], highest[:_MOST_BOUND]] for key, (lowest, highest) in bounds.items()}
    if (size := len(json.dumps(bounds, separators=(",", ":")))) > MOST_JSON:
        raise InvalidDocument(
            f"document {document_id!r}: its metadata has so many numbers and strings that what filters compare takes "
            f"{size} bytes, and Milvus holds {MOST_JSON} a document. Leave some out, or join them to a string."
        )
    return list(terms), bounds


_MOST_BOUND: Final = 2 * LONGEST_BOUND


def expression(condition: Condition) -> str:
    """Return the expression of Milvus that holds where a condition does.

    Raises `InvalidFilter` for what it cannot answer as the language says.
    """
    match condition:
        case Test():
            return _test(condition)
        case Between(lower, upper, _):
            return f"({_test(lower)} and {_test(upper)})"
        case Not(part):
            inner = _alone(part)
            # Milvus 2.3 cannot run a search by the opposite of an opposite.
            return expression(inner.part) if isinstance(inner, Not) else f"(not {expression(inner)})"
        case All(parts):
            return _joined("and", [*map(expression, parts)]) if parts else f"({EVERY})"
        case AnyOf(parts):
            return _joined("or", [*map(expression, parts)]) if parts else f"({_NOTHING})"


def _joined(operator: str, parts: Sequence[str]) -> str:
    """Return the expression that joins others in halves: Milvus cannot read one that is a hundred levels deep."""
    if len(parts) == 1:
        return parts[0]
    half = len(parts) // 2
    return f"({_joined(operator, parts[:half])} {operator} {_joined(operator, parts[half:])})"


def _alone(condition: Condition) -> Condition:
    """Return the one part of a condition that has no other."""
    while isinstance(condition, All | AnyOf) and len(condition.parts) == 1:
        (condition,) = condition.parts
    return condition


def _test(test: Test) -> str:
    field = test.field
    match test.asked:
        case Exists():
            return _has([_digest(field, "exists")])
        case OneOf(values):
            return _has([_of_value(field, value) for value in values])
        case Bound(operator, value):
            if isinstance(value, str) and len(value.encode()) >= LONGEST_BOUND:
                raise InvalidFilter(
                    f"filter.{spelled(field)}: the engine 'milvus' compares strings by order with those of up to "
                    f"{LONGEST_BOUND - 1} bytes, and this has {len(value.encode())}. Compare with its beginning."
                )
            place = 1 if operator.startswith(">") else 0
            compared = f'{BOUNDS}["{_bounds_key(field, value)}"][{place}] {operator} "{_ordered(value)}"'
            return f"({_has([_of_kind(field, value)])} and {compared})"  # the first is false where the other is null
        case Holds():
            raise InvalidFilter(
                f"filter.{spelled(field)}: the engine 'milvus' does not look for parts of strings ($contains, "
                f"$icontains): Milvus has no such search in strings before {_CONTAINS}, and none without regard to "
                "case. Ask for whole values by '$in', or use the engine 'embedded'."
            )
        case Within():
            raise AssertionError("the two bounds are asked for one by one")


def _has(terms: Sequence[str]) -> str:
    if not terms:
        return f"({_NOTHING})"
    if len(terms) == 1:
        return f'array_contains({TERMS}, "{terms[0]}")'
    quoted = ", ".join(f'"{term}"' for term in terms)
    return f"array_contains_any({TERMS}, [{quoted}])"


def _values(members: Mapping[str, Any], within: Field) -> Iterator[tuple[Field, Value]]:
    """Yield all that filters find in an object: a list stands for its elements, but for those that are lists."""
    for name, value in members.items():
        field = (*within, name)
        for item in value or [value] if isinstance(value, list) else [value]:
            if isinstance(item, dict):
                yield field, OBJECT
                yield from _values(item, field)
            elif isinstance(item, list):
                yield field, LIST
            elif item is None:
                yield field, NULL
            elif isinstance(item, bool):
                yield field, TRUE if item else FALSE
            else:
                yield field, item


def _of_value(field: Field, value: Value) -> str:
    return _digest(field, "is", value.decode() if isinstance(value, bytes) else [_kind(value), _ordered(value)])


def _of_kind(field: Field, value: Value) -> str:
    return _digest(field, _kind(value))


def _bounds_key(field: Field, value: Value) -> str:
    return _digest(field, "bounds", _kind(value))[:24]


def _kind(value: Value) -> str:
    return "string" if isinstance(value, str) else "number"


def _digest(field: Field, *of: Any) -> str:
    return blake2b(json.dumps([field, *of]).encode(), digest_size=16).hexdigest()


def _ordered(value: Value) -> str:
    """Return a string or a number in hexadecimal digits that are in the order of their kind.

    A number is the double next to it and what it exceeds that by, so that 64-bit integers and doubles are compared
    exactly; 2 and 2.0 are one number.
    """
    if isinstance(value, str):
        return value.encode().hex()
    assert not isinstance(value, bytes)
    near = float(value) + 0.0  # so that -0 is 0
    (bits,) = struct.unpack(">Q", struct.pack(">d", near))
    bits = ~bits & (1 << 64) - 1 if bits >> 63 else bits | 1 << 63
    return f"{bits:016x}{int(value) - int(near) + 1024 if isinstance(value, int) else 1024:03x}"
