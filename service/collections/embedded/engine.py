"""The embedded engine: collections over one store, each with a vector index in memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from service import index as indexes
from service.collections.embedded.builder import Builder
from service.collections.embedded.changing import encoded, validated
from service.collections.embedded.collection import EmbeddedCollection
from service.collections.naming import check_name, described, require_equal
from service.collections.provenance import Definition
from service.errors import (
    InvalidInput,
    InvalidVector,
    NameConflict,
    NotFound,
    Place,
    StoreDamaged,
    StoreUnavailable,
)
from service.observation import Histogram, phase
from service.store.document import Document, Embedded
from service.store.space import Space
from service.store.store import Store
from service.store.tokenizers import UNICODE61, Tokenizer
from service.store.transaction import CollectionRow, Transaction

T = TypeVar("T")
_MOST_TOGETHER: Final = 64
"""Small changes that become durable together at most."""


class EmbeddedEngine:
    """The collections in a folder, as `Engine` describes them.

    One process at a time can have a folder open; opening it reads every vector into memory, or an index's snapshot
    and the vectors since.
    """

    def __init__(self, store_path: Path) -> None:
        self._store = Store(store_path)
        self._snapshots = store_path / "indexes"
        self._builder = Builder()
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer")
        self._waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        try:
            rows = self._store.collections()
            indexes.tidy_snapshots(self._snapshots, (row.snapshot for row in rows if row.snapshot is not None))
            by_key = {row.key: self._opened(row) for row in rows}
            self._by_name = {collection.name: collection for collection in by_key.values()}
            self._by_alias = {name: by_key[key] for name, key in self._store.aliases()}
            for collection in by_key.values():
                collection.ask_for_build()
        except BaseException:
            self._builder.close()
            self._store.close()
            raise

    @property
    def default_tokenizer(self) -> Tokenizer | None:
        """That of FTS5, which splits texts into words."""
        return UNICODE61

    @property
    def takes_recall(self) -> bool:
        """True: indexes are measured."""
        return True

    def check(self, definition: Definition, dim: int, documents: Sequence[Document], vectors: Embedded) -> None:
        """Check that a collection of a definition and dimension could store documents; nothing is stored."""
        rows = encoded(documents)
        validated(definition, vectors, dim, len(rows))

    def create(
        self,
        name: str,
        definition: Definition,
        dim: int,
        index: str | None = None,
        recall: float | None = None,
        tokenizer: Tokenizer | None = UNICODE61,
        idle_timeout: int | None = None,
    ) -> tuple[EmbeddedCollection, bool]:
        """Create a collection, or return the equal one that exists, and whether it is new."""
        check_name(name, Place("name"))
        if dim < 1:
            raise InvalidVector(f"collection {name!r}: a vector has at least one dimension, not {dim}.")
        existing = self._by_name.get(name)
        kind = (existing.index_kind if existing else indexes.DEFAULT) if index is None else index
        indexes.build(kind, dim, definition.similarity, recall)  # what cannot be must fail before anything is stored
        with self._store.writing() as transaction:
            if existing := self._by_name.get(name):
                kind, recall = index or existing.index_kind, existing.recall if recall is None else recall
                kept = existing.idle_timeout if idle_timeout is None else idle_timeout
                before = indexes.recall_of(existing.index_kind, existing.recall)
                stored = described(
                    *(existing.definition, existing.dim, existing.index_kind, before, existing.tokenizer),
                    existing.idle_timeout,
                )
                asked = described(definition, dim, kind, indexes.recall_of(kind, recall), tokenizer, kept)
                require_equal(name, stored, asked)
                return existing, False
            self._require_free(name)
            encoded = definition.to_json()
            collection = self._opened(transaction.create(name, encoded, dim, kind, recall, tokenizer, idle_timeout))
            transaction.commit()
            self._by_name[name] = collection
            return collection, True

    def get(self, name: str) -> EmbeddedCollection:
        """Return the collection with a name or an alias; raises `NotFound`."""
        if collection := self._by_name.get(name) or self._by_alias.get(name):
            return collection
        raise NotFound(f"there is no collection {name!r}; create it first.")

    def list(self) -> Sequence[EmbeddedCollection]:
        """Return all collections, by name."""
        return sorted(self._by_name.values(), key=lambda collection: collection.name)

    def drop(self, name: str) -> None:
        """Delete a collection with all its documents and aliases; raises `NotFound` and `NameConflict`."""
        with self._store.writing() as transaction:
            collection = self._named(name)
            collection.drop(transaction)
            del self._by_name[name]
            self._by_alias = {alias: of for alias, of in self._by_alias.items() if of is not collection}

    def rename(self, name: str, to: str) -> EmbeddedCollection:
        """Give a collection another name, durably; its aliases stay."""
        check_name(to, Place("to"))
        with self._store.writing() as transaction:
            collection = self._named(name)
            self._require_free(to)
            collection.rename(transaction, to)
            self._by_name = {each.name: each for each in self._by_name.values()}  # a reader sees one name, never none
        return collection

    def copy(self, name: str, to: str) -> EmbeddedCollection:
        """Copy a collection with all its documents to a new one, all or nothing, durably."""
        check_name(to, Place("to"))
        with self._store.writing() as transaction:
            self._require_free(to)
            row = self.get(name).copy(transaction, to)
            collection = self._opened(row, transaction)  # what fails here leaves no copy behind
            transaction.commit()
            self._by_name[to] = collection
        collection.ask_for_build()
        return collection

    def alias(self, alias: str, name: str) -> tuple[EmbeddedCollection, bool]:
        """Make an alias stand for a collection, in one step where it stood for another one, durably."""
        check_name(alias, Place("alias"), "alias")
        with self._store.writing() as transaction:
            if alias in self._by_name:
                raise NameConflict(
                    f"{alias!r} is the name of a collection; choose another alias, or rename it first."
                )
            collection, created = self.get(name), alias not in self._by_alias
            collection.alias(transaction, alias)
            self._by_alias = {**self._by_alias, alias: collection}
        return collection, created

    def delete_alias(self, alias: str) -> None:
        """Delete an alias, durably, and leave the collection as it is; raises `NotFound`."""
        with self._store.writing() as transaction:
            if alias not in self._by_alias:
                raise NotFound(f"there is no alias {alias!r}.")
            transaction.delete_alias(alias)
            transaction.commit()
            self._by_alias = {name: of for name, of in self._by_alias.items() if name != alias}

    def aliases(self) -> Mapping[str, EmbeddedCollection]:
        """Return the collection that each alias stands for, by alias."""
        return dict(sorted(self._by_alias.items()))

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

    async def look(self, read: Callable[..., T], *arguments: Any) -> T:
        """Run a read of names at once: all are in memory."""
        return read(*arguments)

    async def write(self, change: Callable[..., T], *arguments: Any, together: bool = False) -> T:
        """Run a change on the thread of all changes, to its end even if the client that asked for it disconnects.

        The store takes one writer at a time, and those that wait for it must not occupy the threads that search. What
        a change reads holds until it is done.

        With `together`, for small changes of documents, those that wait are made in one transaction, and answered
        once it is durable. Each is made or fails by itself, but for what the store cannot take, such as a commit to a
        full disk, which fails all.
        """
        work = partial(change, *arguments)
        with phase("store"):
            if not together:
                return await asyncio.wrap_future(self._submit(work))
            done: Future[T] = Future()
            self._waiting.append((done, work))
            self._submit(self._write_waiting)
            return await asyncio.wrap_future(done)

    @property
    def commits(self) -> Histogram:
        """Seconds that each commit of the store took."""
        return self._store.commits

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

    def _submit(self, work: Callable[[], T]) -> Future[T]:
        """Let the thread of all changes do something, after what it was given before."""
        try:
            return self._writer.submit(work)
        except RuntimeError as error:  # which it is after its shutdown
            raise StoreUnavailable("the store is closed, since the service stops. Repeat the request.") from error

    def _write_waiting(self) -> None:
        """Make the changes that wait, in one transaction; none is answered before all are durable."""
        waiting = [self._waiting.popleft() for _ in range(min(len(self._waiting), _MOST_TOGETHER))]
        running = [(done, change) for done, change in waiting if done.set_running_or_notify_cancel()]
        if not running:
            return
        answers: list[Callable[[], None]] = []
        try:
            with self._store.sharing():
                for done, change in running:
                    try:
                        answers.append(partial(done.set_result, change()))
                    except Exception as error:
                        if isinstance(error, StoreUnavailable) and not isinstance(error, StoreDamaged):
                            raise
                        answers.append(partial(done.set_exception, error))
        except BaseException as error:
            answers = [partial(done.set_exception, error) for done, _ in running]
        for answer in answers:
            answer()

    def _opened(self, row: CollectionRow, transaction: Transaction | None = None) -> EmbeddedCollection:
        """Return a collection, as it is stored or as it will be with a transaction."""
        vectors = None if transaction is None else transaction.vectors(row.key, row.dim)
        return EmbeddedCollection(self._store, row, self._builder, self._snapshots, vectors)

    def _named(self, name: str) -> EmbeddedCollection:
        """Return the collection that has a name as its own; raises `NotFound`, and `NameConflict` for an alias."""
        if name in self._by_alias:
            raise NameConflict(
                f"{name!r} is an alias of collection {self.get(name).name!r}. Name the collection itself, or change "
                "the alias."
            )
        return self.get(name)

    def _require_free(self, name: str) -> None:
        """Raise `NameConflict` where a name is taken."""
        if name in self._by_alias:
            raise NameConflict(f"{name!r} is an alias of collection {self.get(name).name!r}; choose another name.")
        if name in self._by_name:
            raise NameConflict(f"there is a collection {name!r} already; choose another name, or drop it first.")
