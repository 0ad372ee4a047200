"""Which vectors lie nearest to a query. Knows neither texts nor models."""

from service.index.base import BuiltIndex, DamagedSnapshot, IndexState, IndexView, VectorIndex, VectorSource
from service.index.registry import DEFAULT, KINDS, build, recall_of
from service.index.snapshot import remove as remove_snapshot
from service.index.snapshot import tidy as tidy_snapshots

__all__ = [
    "DEFAULT",
    "KINDS",
    "BuiltIndex",
    "DamagedSnapshot",
    "IndexState",
    "IndexView",
    "VectorIndex",
    "VectorSource",
    "build",
    "recall_of",
    "remove_snapshot",
    "tidy_snapshots",
]
