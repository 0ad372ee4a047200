"""Documents and their vectors: a durable store, and exact filtered search over it.

Knows nothing of models or HTTP: numpy vectors in, hits out, synchronous and thread-safe.
"""

from service.collections.collection import Collection, Definition, Rebuild
from service.collections.document import Document, Hit
from service.collections.errors import (
    CollectionError,
    Conflict,
    InvalidDocument,
    InvalidFilter,
    InvalidIndex,
    InvalidName,
    InvalidVector,
    NotFound,
    StoreUnavailable,
    Superseded,
)
from service.collections.manager import Collections

__all__ = [
    "Collection",
    "CollectionError",
    "Collections",
    "Conflict",
    "Definition",
    "Document",
    "Hit",
    "InvalidDocument",
    "InvalidFilter",
    "InvalidIndex",
    "InvalidName",
    "InvalidVector",
    "NotFound",
    "Rebuild",
    "StoreUnavailable",
    "Superseded",
]
