"""Which vectors lie nearest to a query. Knows neither texts nor models."""

from service.index.base import (
    EXACT,
    Build,
    BuiltIndex,
    DamagedSnapshot,
    IndexState,
    IndexView,
    VectorIndex,
    VectorSource,
)
from service.index.registry import DEFAULT, KINDS, build, recall_of
from service.index.snapshot import remove as remove_snapshot
from service.index.snapshot import tidy as tidy_snapshots
from service.index.snapshot import written as snapshot_time

__all__ = [
    "DEFAULT",
    "EXACT",
    "KINDS",
    "Build",
    "BuiltIndex",
    "DamagedSnapshot",
    "IndexState",
    "IndexView",
    "VectorIndex",
    "VectorSource",
    "build",
    "recall_of",
    "remove_snapshot",
    "snapshot_time",
    "tidy_snapshots",
]
