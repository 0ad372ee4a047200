"""The engine of a deployment without a store: there are no collections, and whoever wants some is told so."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from service.collections.protocols import Collection
from service.errors import NoStore
from service.observation import DURATIONS, Histogram
from service.store.space import Space

T = TypeVar("T")


class AbsentEngine:
    """Has no collection, and raises `NoStore` for whatever is asked of one."""

    def __init__(self) -> None:
        self.commits = Histogram(DURATIONS)
        """None are counted."""
        self.default_tokenizer = None
        self.takes_recall = False

    def check(self, *_: Any) -> NoReturn:
        """Refuse."""
        raise _error()

    def list(self) -> Sequence[Collection]:
        """Return none."""
        return ()

    def aliases(self) -> Mapping[str, Collection]:
        """Return none."""
        return {}

    def get(self, name: str) -> NoReturn:
        """Refuse."""
        raise _error()

    def create(self, name: str, *_: Any, **__: Any) -> NoReturn:
        """Refuse."""
        raise _error()

    def drop(self, name: str) -> NoReturn:
        """Refuse."""
        raise _error()

    def rename(self, name: str, to: str) -> NoReturn:
        """Refuse."""
        raise _error()

    def copy(self, name: str, to: str) -> NoReturn:
        """Refuse."""
        raise _error()

    def alias(self, alias: str, name: str) -> NoReturn:
        """Refuse."""
        raise _error()

    def delete_alias(self, alias: str) -> NoReturn:
        """Refuse."""
        raise _error()

    async def compact(self, *, rebuild: bool = False) -> tuple[Space, Space]:
        """Refuse."""
        raise _error()

    async def look(self, read: Callable[..., T], *arguments: Any) -> T:
        """Read what there is, which is nothing."""
        return read(*arguments)

    async def write(self, change: Callable[..., T], *arguments: Any, together: bool = False) -> T:
        """Refuse."""
        raise _error()

    def close(self) -> None:
        """There is nothing to close."""


def _error() -> NoStore:
    return NoStore(
        "replicas on a cluster share no store, so documents are neither kept nor searched here. Give the "
        "config a Milvus server as store, or ask a service that `millpond serve` runs; vectors are the same where "
        "the fingerprint is."
    )
