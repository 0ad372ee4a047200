"""Cross-encoders: pairs of texts in, scores out."""

from service.ranking.reranker import Reranker, Scored
from service.ranking.rerankers import Rerankers

__all__ = ["Reranker", "Rerankers", "Scored"]
