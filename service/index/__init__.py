"""Which vectors lie nearest to a query. Knows neither texts nor models."""

from service.index.base import IndexView, VectorIndex
from service.index.registry import KINDS, build

__all__ = ["KINDS", "IndexView", "VectorIndex", "build"]
