"""Documents, metadata and vectors on disk: the truth. Knows neither models nor HTTP nor indexes."""

from service.store.document import Chunked, Document, Embedded, Span, Spans, Stored

__all__ = ["Chunked", "Document", "Embedded", "Span", "Spans", "Stored"]
