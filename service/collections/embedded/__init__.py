"""The embedded engine: documents in one SQLite file, and for each collection a vector index in memory."""

from service.collections.embedded.engine import EmbeddedEngine

__all__ = ["EmbeddedEngine"]
