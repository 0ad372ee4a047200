"""The Milvus engine: documents, vectors and metadata in a Milvus server, which several services may share."""

from service.collections.milvus.engine import MilvusEngine

__all__ = ["MilvusEngine"]
