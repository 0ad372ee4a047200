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
from service.collections.collection import Collection
from service.collections.provenance import Definition
from service.errors import Conflict, InvalidInput, InvalidName, InvalidVector, NotFound, Place
from service.store.space import Space
from service.store.store import Store

T = TypeVar("T")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


class Collections:
    """The collections in a folder, by name; every method is thread-safe.

    One process at a time can have a folder open; opening it reads every vector into memory. Every method that reads
    or writes the store raises `StoreUnavailable` where it cannot.
    """

    def __init__(self, store_path: Path) -> None:
        self._store = Store(store_path)
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer")
        try:
            self._by_name = {row.name: Collection(self._store, row) for row in self._store.collections()}
        except BaseException:
            self._store.close()
            raise

    def create(self, name: str, definition: Definition, dim: int, index: str = "flat") -> tuple[Collection, bool]:
        """Create a collection, or return the equal one that exists, and whether it is new.

        Raises `InvalidName`, `InvalidIndex`, `InvalidVector` for a `dim` below one, and `Conflict` where the name
        exists with another definition, dimension or kind of index.
        """
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InvalidName(
                f"collection name {name!r}: a name has 1 to 128 of the characters A-Z a-z 0-9 _ . - "
                "and begins with a letter or a digit."
            )
        if dim < 1:
            raise InvalidVector(f"collection {name!r}: a vector has at least one dimension, not {dim}.")
        indexes.build(index, dim, definition.similarity)  # an unknown kind must fail before anything is stored
        with self._store.writing() as transaction:
            if existing := self._by_name.get(name):
                stored = _described(existing.definition, existing.dim, existing.index_kind)
                asked = _described(definition, dim, index)
                if json.dumps(stored, sort_keys=True) != json.dumps(asked, sort_keys=True):
                    raise Conflict(name, stored, asked)
                return existing, False
            collection = Collection(self._store, transaction.create(name, definition.to_json(), dim, index))
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

    async def compact(self, *, rebuild: bool = False) -> tuple[Space, Space]:
        """Give the free space of the store back to the disk; return its space before and after.

        It is done in small steps, between which other changes are made. A file of an earlier release has to be
        written anew once, for which all changes wait, and which is refused without `rebuild`. Raises `InvalidInput`,
        and `NoSpace` where the disk has no room for that.
        """
        before = await asyncio.to_thread(self._store.space)
        if rebuild:
            await self.write(self._store.rebuild_file)
        elif before.incremental:
            while await self.write(self._store.release):
                pass
        else:
            raise InvalidInput(
                "the store was made by an earlier release, and its file has to be written anew once to be smaller. "
                "No document can be stored meanwhile. Ask for it with `millpond compact --rebuild` "
                '("rebuild": true), or stop the service and run `millpond compact --store FOLDER`.',
                where=Place("rebuild"),
            )
        await self.write(self._store.checkpoint)
        return before, await asyncio.to_thread(self._store.space)

    async def write(self, change: Callable[..., T], *arguments: Any) -> T:
        """Run a change on the thread of all changes, to its end even if the client that asked for it disconnects.

        The store takes one writer at a time, and those that wait for it must not occupy the threads that search. What
        a change reads holds until it is done.
        """
        return await asyncio.get_running_loop().run_in_executor(self._writer, partial(change, *arguments))

    def close(self) -> None:
        """Finish the changes in progress and close the store; later calls raise `StoreUnavailable`."""
        self._writer.shutdown()
        self._store.close()


def _described(definition: Definition, dim: int, index: str) -> dict[str, Any]:
    return {"dimension": dim, "index": index, **definition.to_json(), "similarity": definition.similarity.name}
