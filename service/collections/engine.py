"""The embedded engine: collections over one store, each with a vector index in memory."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from service import index as indexes
from service.collections.builder import Builder
from service.collections.collection import Collection
from service.collections.provenance import Definition
from service.errors import Conflict, InvalidName, InvalidVector, NotFound
from service.store.store import Store
from service.store.transaction import CollectionRow

T = TypeVar("T")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


class Collections:
    """The collections in a folder, by name; every method is thread-safe.

    One process at a time can have a folder open; opening it reads every vector into memory, or an index's snapshot
    and the vectors since. Every method that reads or writes the store raises `StoreUnavailable` where it cannot.
    """

    def __init__(self, store_path: Path) -> None:
        self._store = Store(store_path)
        self._snapshots = store_path / "indexes"
        self._builder = Builder()
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer")
        try:
            rows = self._store.collections()
            indexes.tidy_snapshots(self._snapshots, (row.snapshot for row in rows if row.snapshot is not None))
            self._by_name = {row.name: self._opened(row) for row in rows}
        except BaseException:
            self._builder.close()
            self._store.close()
            raise

    def create(
        self,
        name: str,
        definition: Definition,
        dim: int,
        index: str | None = None,
        recall: float | None = None,
    ) -> tuple[Collection, bool]:
        """Create a collection, or return the equal one that exists, and whether it is new.

        One that exists has its own kind of index and recall, where none is asked for. Raises `InvalidName`,
        `InvalidIndex`, `InvalidVector` for a `dim` below one, and `Conflict` where the name exists with another
        definition, dimension, kind of index or recall.
        """
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InvalidName(
                f"collection name {name!r}: a name has 1 to 128 of the characters A-Z a-z 0-9 _ . - "
                "and begins with a letter or a digit."
            )
        if dim < 1:
            raise InvalidVector(f"collection {name!r}: a vector has at least one dimension, not {dim}.")
        existing = self._by_name.get(name)
        kind = (existing.index_kind if existing else indexes.DEFAULT) if index is None else index
        indexes.build(kind, dim, definition.similarity, recall)  # what cannot be must fail before anything is stored
        with self._store.writing() as transaction:
            if existing := self._by_name.get(name):
                kind = existing.index_kind if index is None else index
                stored = _described(existing.definition, existing.dim, existing.index_kind, existing.recall)
                asked = _described(definition, dim, kind, existing.recall if recall is None else recall)
                if json.dumps(stored, sort_keys=True) != json.dumps(asked, sort_keys=True):
                    raise Conflict(name, stored, asked)
                return existing, False
            collection = self._opened(transaction.create(name, definition.to_json(), dim, kind, recall))
            transaction.commit()
            self._by_name[name] = collection
            return collection, True

    def get(self, name: str) -> Collection:
        """Return the collection with a name; raises `NotFound`."""
        if collection := self._by_name.get(name):
            return collection
        raise NotFound(f"there is no collection {name!r}; create it first.")

    def list(self) -> Sequence[Collection]:
        """Return all collections, by name."""
        return sorted(self._by_name.values(), key=lambda collection: collection.name)

    def drop(self, name: str) -> None:
        """Delete a collection with all its documents; raises `NotFound`."""
        with self._store.writing() as transaction:
            self.get(name).drop(transaction)
            del self._by_name[name]

    async def write(self, change: Callable[..., T], *arguments: Any) -> T:
        """Run a change on the thread of all changes, to its end even if the client that asked for it disconnects.

        The store takes one writer at a time, and those that wait for it must not occupy the threads that search. What
        a change reads holds until it is done.
        """
        return await asyncio.get_running_loop().run_in_executor(self._writer, partial(change, *arguments))

    def wait_for_builds(self) -> None:
        """Wait until no part of an index is left to build."""
        self._builder.wait()

    def close(self) -> None:
        """Finish the changes in progress and close the store; later calls raise `StoreUnavailable`.

        An index that is being built is given up; what came since the last snapshot is read from the store again.
        """
        self._writer.shutdown()
        self._builder.close()
        self._store.close()

    def _opened(self, row: CollectionRow) -> Collection:
        return Collection(self._store, row, self._builder, self._snapshots)


def _described(definition: Definition, dim: int, index: str, recall: float | None) -> dict[str, Any]:
    target = indexes.recall_of(index, recall)
    asked = {} if target is None else {"recall": target}
    own = {"dimension": dim, "index": index, **asked}
    return {**own, **definition.to_json(), "similarity": definition.similarity.name}
