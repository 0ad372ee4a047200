"""Everything that can go wrong with a collection, as one family of exceptions."""

import json
from collections.abc import Mapping
from typing import Any


class CollectionError(Exception):
    """Base of all errors of this package; the message says what was wrong, where, and what would be right."""


class NotFound(CollectionError):
    """No collection, or no document, has the asked name or id."""


class Conflict(CollectionError):
    """A collection of this name exists under another definition."""

    def __init__(self, name: str, stored: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
        self.stored = dict(stored)
        self.asked = dict(asked)
        differences = [
            f"{key}: stored {_said(stored, key)}, asked {_said(asked, key)}"
            for key in sorted(self.stored.keys() | self.asked.keys())
            if _said(stored, key) != _said(asked, key)
        ]
        super().__init__(
            f"collection {name!r} exists under another definition ({'; '.join(differences)}). "
            "Ask for the stored definition, choose another name, drop the collection first, or, to change its model, "
            "pooling or chunking, reindex it."
        )


def _said(definition: Mapping[str, Any], key: str) -> str:
    return json.dumps(definition[key], sort_keys=True) if key in definition else "nothing"


class Superseded(CollectionError):
    """Vectors were made under a definition that the collection no longer has, or is no longer to have."""


class InvalidName(CollectionError):
    """A collection cannot have this name."""


class InvalidIndex(CollectionError):
    """No vector index of this kind is known."""


class InvalidFilter(CollectionError):
    """A filter does not follow the filter language."""


class InvalidDocument(CollectionError):
    """An id, a text or the metadata of a document cannot be stored."""


class InvalidVector(CollectionError):
    """Vectors have the wrong shape or type, or values that no cosine is defined for."""


class StoreUnavailable(CollectionError):
    """The store's folder or file cannot be opened, read or written."""
