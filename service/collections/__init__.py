"""Documents and their vectors: a durable store, and exact filtered search over it.

Knows nothing of models or HTTP: numpy vectors in, hits out, synchronous and thread-safe.
"""

from service.collections.collection import Collection, Definition, Rebuild
from service.collections.document import Document, Hit, Span, Spans
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
from service.collections.vectors import Chunked, Embedded

__all__ = [
    "Chunked",
    "Collection",
    "CollectionError",
    "Collections",
    "Conflict",
    "Definition",
    "Document",
    "Embedded",
    "Hit",
    "InvalidDocument",
    "InvalidFilter",
    "InvalidIndex",
    "InvalidName",
    "InvalidVector",
    "NotFound",
    "Rebuild",
    "Span",
    "Spans",
    "StoreUnavailable",
    "Superseded",
]
