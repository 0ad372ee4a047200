"""Documents, metadata and vectors on disk: the truth. Knows neither models nor HTTP."""

from service.store.document import Document, Hit, Span, Spans
from service.store.vectors import Chunked, Embedded

__all__ = ["Chunked", "Document", "Embedded", "Hit", "Span", "Spans"]
