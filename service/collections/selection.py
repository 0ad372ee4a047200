"""Which documents of a collection a change is for, and what it does to their metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.errors import InvalidInput, Place
from service.store.conditions import certain
from service.store.filters import AnyFilter, as_filter


@dataclass(frozen=True, slots=True)
class Selection:
    """Documents of a collection: those with ids, those that match a filter, or all.

    Raises:
        InvalidFilter: the filter is none.
        InvalidInput: not exactly one of the three is given, or the filter has no condition: a mistake that leaves it
            empty, or the list of a `$nin`, must not change every document.
    """

    ids: Sequence[str] | None = None
    filter: AnyFilter | None = None
    all: bool = False

    def __post_init__(self) -> None:
        given = {"ids": self.ids is not None, "filter": self.filter is not None, "all": self.all}
        if sum(given.values()) != 1:
            has = " and ".join(repr(name) for name, present in given.items() if present) or "none"
            raise InvalidInput(
                f"say which documents are meant by one of 'ids', 'filter' and 'all'; this has {has}.",
                where=Place("ids"),
            )
        if self.filter is not None and certain(as_filter(self.filter).condition):
            raise InvalidInput(
                "filter has no condition that a document could fail, and so matches every document: it is empty, or "
                "asks for none of an empty list. Where all are meant, say 'all' (true) in its place.",
                where=Place("filter"),
            )


@dataclass(frozen=True, slots=True)
class Changed:
    """How many documents were changed, and which of the ids that were given no document has."""

    count: int
    missing: Sequence[str]


def merged(metadata: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata under a JSON merge patch (RFC 7396).

    Objects are merged key by key, a null removes its key, and any other value replaces what is there.
    """
    result = dict(metadata)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            before = result.get(key)
            result[key] = merged(before if isinstance(before, Mapping) else {}, value)
        else:
            result[key] = value
    return result
