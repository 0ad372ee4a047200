"""Sparse embeddings: texts in, weights of a vocabulary's tokens out."""

from service.embedding.sparse.embedder import SparseEmbedder, SparseEmbeddings
from service.embedding.sparse.models import SparseModels
from service.embedding.sparse.weights import MOST_WEIGHTS, SparseVector

__all__ = ["MOST_WEIGHTS", "SparseEmbedder", "SparseEmbeddings", "SparseModels", "SparseVector"]
