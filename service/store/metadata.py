"""The values in metadata as rows that an index finds, and the documents that meet a condition on them."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Final

import numpy as np
import orjson

from service.arrays import Keys
from service.errors import did_you_mean
from service.store.conditions import (
    FALSE,
    LIST,
    NULL,
    OBJECT,
    OF_KIND,
    TRUE,
    All,
    AnyOf,
    Between,
    Condition,
    Field,
    Kind,
    Lookup,
    Not,
    Test,
    Value,
    indexed,
    tests_of,
)
from service.store.damage import damaged
from service.store.fields import spelled

_FEW: Final = 5_000
"""Documents whose values are looked at one by one rather than all values that pass a test."""
_MOST_SUGGESTED: Final = 200
"""Fields among which the one that was meant is looked for."""
_BLOCK: Final = 1_000
"""Documents whose metadata is in memory at once."""
_NOTHING: Final = np.empty(0, np.int64)
_NAMES: Final[Mapping[Kind, str]] = {
    "null": "null",
    "boolean": "true or false",
    "number": "a number",
    "string": "a string",
}
_Row = tuple[int, int, Value]
"""A document, a field and a value."""
_IN_ORDER: Final = "SELECT group_concat(document) FROM (SELECT document FROM {} AS entry WHERE {} LIMIT ?)"
# CROSS JOIN, so that SQLite goes from the documents to their values.
_OF_THESE: Final = (
    "SELECT group_concat(document) FROM (SELECT document FROM json_each(?) AS these CROSS JOIN {} AS entry "
    "WHERE document = these.value AND {})"
)


def index_metadata(connection: sqlite3.Connection) -> None:
    """Make filters find what is in metadata that was stored or changed since the last call."""
    while documents := connection.execute(
        "SELECT key, collection, metadata FROM (SELECT document FROM unindexed ORDER BY document LIMIT ?) "
        "CROSS JOIN documents ON key = document",
        (_BLOCK,),
    ).fetchall():
        collections = {collection: _Fields(connection, collection) for _, collection, _ in documents}
        rows: list[_Row] = []
        long: list[_Row] = []
        for key, collection, metadata in documents:
            try:
                members = orjson.loads(metadata)
            except ValueError:
                raise damaged(f"document {key} cannot be read") from None
            collections[collection].read(key, members, rows, long)
        # An element that a list holds twice is one row.
        connection.executemany("INSERT OR IGNORE INTO field_values (document, field, value) VALUES (?, ?, ?)", rows)
        connection.executemany("INSERT INTO long_values (document, field, value) VALUES (?, ?, ?)", long)
        connection.execute("DELETE FROM unindexed WHERE document <= ?", (documents[-1][0],))


class _Fields:
    """The fields of a collection's metadata, by the field that they are in, 0 for none, and their name."""

    def __init__(self, connection: sqlite3.Connection, collection: int) -> None:
        self._connection = connection
        self._collection = collection
        self._known: dict[tuple[int, str], int] = {}
        self._plural: set[int] = set()

    def read(self, document: int, metadata: Mapping[str, Any], rows: list[_Row], long: list[_Row]) -> None:
        """Append a row for everything in the metadata of a document, and one for each long string.

        A list stands for its elements, and what is in an element that is a list is not found.
        """
        start = len(rows)
        if self._read(document, 0, metadata, rows, long):
            counts = Counter(field for _, field, _ in rows[start:])
            plural = {field for field, count in counts.items() if count > 1} - self._plural
            self._connection.executemany(
                "UPDATE fields SET plural = 1 WHERE key = ? AND NOT plural", [(field,) for field in plural]
            )
            self._plural |= plural

    def _read(
        self, document: int, parent: int, members: Mapping[str, Any], rows: list[_Row], long: list[_Row]
    ) -> bool:
        """Append rows for everything in an object; return whether a list in it has several elements."""
        several = False
        for name, value in members.items():
            field = self._known.get((parent, name)) or self._key(parent, name)
            if isinstance(value, list):
                several |= len(value) > 1
                items = value or [value]
            else:
                items = [value]
            for item in items:
                if isinstance(item, dict):
                    rows.append((document, field, OBJECT))
                    several |= self._read(document, field, item, rows, long)
                elif isinstance(item, str):
                    rows.append((document, field, found := indexed(item)))
                    if found is not item:
                        long.append((document, field, item))
                else:
                    rows.append((document, field, _stored(item)))
        return several

    def _key(self, parent: int, name: str) -> int:
        asked = (self._collection, parent, name)
        found = (
            self._connection.execute(
                "SELECT key FROM fields WHERE collection = ? AND parent = ? AND name = ?", asked
            ).fetchone()
            or self._connection.execute(
                "INSERT INTO fields (collection, parent, name, plural) VALUES (?, ?, ?, 0) RETURNING key", asked
            ).fetchone()
        )
        key = self._known[parent, name] = int(found[0])
        return key


class Selection:
    """Finds the documents of a collection that meet a condition, in a transaction that is open on the connection.

    `everything` returns the keys, ascending, of all its documents, where that is known; reading them takes as long as
    a filter that matches half of them.
    """

    def __init__(
        self, connection: sqlite3.Connection, collection: int, everything: Callable[[], Keys] | None = None
    ) -> None:
        self._connection = connection
        self._collection = collection
        self._everything = everything

    def keys(self, condition: Condition, among: Keys | None = None) -> Keys:
        """Return the keys, ascending, of the documents that meet a condition: of all, or among these."""
        if among is not None and not len(among):
            return among
        match condition:
            case Test():
                return self._passing(condition, among)
            case Between(lower, upper, both):
                _, plural = self._field(both.field) or (0, 0)
                return self.keys(All([lower, upper]) if plural else both, among)
            case AnyOf(parts):
                return _distinct(np.concatenate([_NOTHING, *(self.keys(part, among) for part in parts)]))
            case Not(part):
                return _common(self._all if among is None else among, self.keys(part, among), invert=True)
            case All(parts):
                return self._meeting_all(parts, among)

    def warnings(self, condition: Condition) -> list[str]:
        """Return what about a condition can match nothing, as no document has such a field or value."""
        found = (warning for test in tests_of(condition) if (warning := self._warning(test)))
        return list(dict.fromkeys(found))

    def _meeting_all(self, parts: Sequence[Condition], among: Keys | None) -> Keys:
        """Begin with what few documents meet; then little is left to be looked at."""
        left = []
        for part in parts:
            few = self._if_few(part)
            if few is None:
                left.append(part)
            else:
                among = few if among is None else _common(among, few)
        for part in sorted(left, key=_cost):
            among = self.keys(part, among)
        return self._all if among is None else among

    def _if_few(self, condition: Condition) -> Keys | None:
        """Return the documents that meet a condition, where they are found at once and are few."""
        match condition:
            case Between(both=test) | (Test() as test) if not test.scans:
                field = self._field(test.field)
                if field is None:
                    return _NOTHING
                key, plural = field
                if len(test.lookups) == 1 and not (plural and isinstance(condition, Between)):
                    found = self._found(key, test.lookups[0], _FEW + 1)
                    return _distinct(found) if len(found) <= _FEW else None
        return None

    def _passing(self, test: Test, among: Keys | None) -> Keys:
        field = self._field(test.field)
        if field is None:
            return _NOTHING
        key, _ = field
        if among is not None and len(among) <= _FEW:
            these = json.dumps(among.tolist())
            found = [self._found_of(these, key, lookup) for lookup in test.lookups]
            return _distinct(np.concatenate([_NOTHING, *found]))
        found = [self._found(key, lookup) for lookup in test.lookups]
        everywhere = _distinct(np.concatenate([_NOTHING, *found]))
        return everywhere if among is None else _common(among, everywhere)

    def _found(self, field: int, lookup: Lookup, most: int = -1) -> Keys:
        """Return the documents of values that a lookup finds, in the order of the values, so many at most."""
        statement = _IN_ORDER.format(lookup.table, f"field = ? AND {lookup.condition}")
        return self._read(statement, [field, *lookup.parameters, most])

    def _found_of(self, these: str, field: int, lookup: Lookup) -> Keys:
        """Return which of these documents, a list in JSON, have a value that a lookup finds."""
        statement = _OF_THESE.format(lookup.table, f"field = ? AND {lookup.condition}")
        return self._read(statement, [these, field, *lookup.parameters])

    @cached_property
    def _all(self) -> Keys:
        if self._everything is not None:
            return self._everything()
        return self._read("SELECT group_concat(key) FROM documents WHERE collection = ?", [self._collection])

    def _read(self, statement: str, parameters: Sequence[Value]) -> Keys:
        """Return a column of keys, which comes as text: reading a row for each takes three times as long."""
        (text,) = self._connection.execute(statement, parameters).fetchone()
        return _NOTHING if text is None else np.fromstring(text, np.int64, sep=",")

    def _field(self, field: Field) -> tuple[int, int] | None:
        """Return the key of a field and whether documents have several values there; None where none ever had one."""
        found = (0, 0)
        for name in field:
            row = self._connection.execute(
                "SELECT key, plural FROM fields WHERE collection = ? AND parent = ? AND name = ?",
                (self._collection, found[0], name),
            ).fetchone()
            if row is None:
                return None
            found = row
        return found

    def _warning(self, test: Test) -> str | None:
        field = self._field(test.field)
        name = spelled(test.field)
        if field is None or not self._any(field[0], "TRUE"):
            return f"no document has the field {name!r}.{did_you_mean(name, self._names())}"
        if not test.kinds or any(self._any(field[0], OF_KIND[kind]) for kind in test.kinds):
            return None
        there = [_NAMES[kind] for kind in OF_KIND if self._any(field[0], OF_KIND[kind])]
        there += [
            noun
            for value, noun in ((OBJECT, "an object"), (LIST, "an empty list or one in a list"))
            if self._any(field[0], f"entry.value = x'{value.hex()}'")
        ]
        wanted = " or ".join(_NAMES[kind] for kind in OF_KIND if kind in test.kinds)
        return f"no document has {wanted} in the field {name!r}, but {', '.join(there)}."

    def _any(self, field: int, condition: str) -> bool:
        """Return whether there is a value in a field that meets a condition on `entry.value`."""
        found = self._connection.execute(
            f"SELECT EXISTS (SELECT * FROM field_values AS entry WHERE field = ? AND {condition})", (field,)
        )
        return bool(found.fetchone()[0])

    def _names(self) -> list[str]:
        """Return the names of fields that documents have, as a filter spells them."""
        rows = self._connection.execute(
            "SELECT key, parent, name FROM fields WHERE collection = ? "
            "AND EXISTS (SELECT * FROM field_values WHERE field = key) ORDER BY key LIMIT ?",
            (self._collection, _MOST_SUGGESTED),
        )
        fields: dict[int, Field] = {0: ()}
        for key, parent, name in rows:  # a field comes after the one that it is in
            fields[key] = (*fields[parent], name)
        return [spelled(field) for field in fields.values() if field and all(field)]


def _cost(condition: Condition) -> int:
    """Return a rank by which the parts of a condition are looked at: first those that find, last those that scan."""
    match condition:
        case Test(scans=True):
            return 2
        case Not():
            return 1
        case _:
            return 0


def _stored(value: Any) -> Value:
    """Return a number or what has no order, a list for the fact that it is there, as it is stored."""
    if value is None:
        return NULL
    if value is True or value is False:
        return TRUE if value else FALSE
    scalar: Value = LIST if isinstance(value, list) else value
    return scalar


def _distinct(keys: Keys) -> Keys:
    """Return keys ascending and each once, as they mostly are already."""
    if (keys[1:] > keys[:-1]).all():
        return keys
    keys = np.sort(keys)
    distinct: Keys = keys[np.concatenate([[True], keys[1:] > keys[:-1]])]
    return distinct


def _common(keys: Keys, others: Keys, *, invert: bool = False) -> Keys:
    """Return those of the keys that are among others, or with `invert` those that are not."""
    kept: Keys = keys[np.isin(keys, others, assume_unique=True, invert=invert)]
    return kept
