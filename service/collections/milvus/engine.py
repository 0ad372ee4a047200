"""The Milvus engine: collections in one database of a Milvus server, which other services may use as well."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, TypeVar

from service.collections.milvus.client import Client
from service.collections.milvus.collection import MilvusCollection
from service.collections.milvus.generation import Generation, check_kind, every, found, physical_name
from service.collections.milvus.names import alias_of
from service.collections.milvus.rows import Clock, encoded, validated
from service.collections.milvus.schema import MOST_DIM
from service.collections.milvus.searching import NO_KEYWORDS
from service.collections.naming import check_name, described, require_equal
from service.collections.provenance import Definition
from service.errors import (
    InvalidInput,
    InvalidVector,
    KeywordsUnavailable,
    NameConflict,
    NotFound,
    Place,
    StoreUnavailable,
)
from service.index import DEFAULT
from service.observation import Histogram, phase
from service.observation.histogram import DURATIONS
from service.store.document import Document, Embedded
from service.store.space import Space
from service.store.tokenizers import Tokenizer

T = TypeVar("T")
_TRIES: Final = 3
_LOOKERS: Final = 8
"""Reads of names that wait for the server at once."""


class MilvusEngine:
    """The collections in a database of a Milvus server, as `Engine` describes them.

    A collection of Millpond is one of Milvus, and an alias of Milvus stands for each of its names: for its own, which
    it also has as a property, and for its aliases. Making an alias fails where there is one, so that of two services
    that want a name one gets it. Nothing is read when it is opened, so that a server that is down is no reason not to
    start; what needs it raises `StoreUnavailable` until it is there.

    Args:
        uri: the address of the server.
        token: what it lets one in by, `user:password` or an API key; None where it needs nothing.
        database: its database.
        timeout: seconds that a call may take.
    """

    def __init__(self, uri: str, token: str | None = None, database: str = "default", timeout: float = 10.0) -> None:
        self._client = Client(uri, token, database, timeout)
        self._clock = Clock()
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer")
        self._lookers = ThreadPoolExecutor(max_workers=_LOOKERS, thread_name_prefix="looker")
        self._lock = threading.Lock()
        self._known: dict[int, MilvusCollection] = {}
        self._commits = Histogram(DURATIONS)

    @property
    def default_tokenizer(self) -> Tokenizer | None:
        """None: collections are not searched by words."""
        return None

    @property
    def takes_recall(self) -> bool:
        """False: Milvus does not measure it."""
        return False

    def check(self, definition: Definition, dim: int, documents: Sequence[Document], vectors: Embedded) -> None:
        """Check that a collection of a definition and dimension could store documents; nothing is stored."""
        of = [encoded(document) for document in documents]
        for each, (own, spans) in zip(of, validated(definition, vectors, dim, len(of)), strict=True):
            each.rows(own, spans, 0, 0)

    def create(
        self,
        name: str,
        definition: Definition,
        dim: int,
        index: str | None = None,
        recall: float | None = None,
        tokenizer: Tokenizer | None = None,
        idle_timeout: int | None = None,
    ) -> tuple[MilvusCollection, bool]:
        """Create a collection, or return the equal one that exists, and whether it is new."""
        check_name(name, Place("name"))
        if not 1 <= dim <= MOST_DIM:
            raise InvalidVector(
                f"collection {name!r}: a vector has at least one dimension, and in Milvus at most {MOST_DIM}, "
                f"not {dim}."
            )
        if index is not None or recall is not None:
            check_kind(DEFAULT if index is None else index, recall)
        if tokenizer is not None:
            raise KeywordsUnavailable(NO_KEYWORDS, where=Place("keyword"))
        if idle_timeout is not None:
            raise InvalidInput(
                "the engine 'milvus' has no idle timeout: several services may use a collection, and each knows of "
                "its own requests alone. Leave it out, and delete the collection when it is not needed any more.",
                where=Place("idle_timeout"),
            )
        for _ in range(_TRIES):
            if existing := self._found(name):
                if existing.name != name:
                    raise NameConflict(f"{name!r} is an alias of collection {existing.name!r}; choose another name.")
                kind = existing.index_kind if index is None else index
                stored = described(existing.definition, existing.dim, existing.index_kind, None, None)
                require_equal(name, stored, described(definition, dim, kind, None, None))
                return self._collection(existing), False
            made = self._made(name, definition, dim, DEFAULT if index is None else index)
            if self._claim(name, made.physical):
                return self._collection(replace(made, others=(alias_of(name),))), True
            self._client.drop(made.physical)  # another service was quicker
        raise StoreUnavailable(f"collection {name!r} is created and dropped all the time. Repeat the request.")

    def get(self, name: str) -> MilvusCollection:
        """Return the collection with a name or an alias; raises `NotFound`."""
        if generation := self._found(name):
            return self._collection(generation)
        raise NotFound(f"there is no collection {name!r}; create it first.")

    def list(self) -> Sequence[MilvusCollection]:
        """Return all collections, by name."""
        current = [each for each in every(self._client) if each.current]
        return [self._collection(each) for each in sorted(current, key=lambda each: each.name)]

    def aliases(self) -> Mapping[str, MilvusCollection]:
        """Return the collection that each alias stands for, by alias."""
        generations = every(self._client)
        current = {each.uid: each for each in generations if each.current}
        of = {
            alias: self._collection(current[each.uid])
            for each in generations
            if each.uid in current
            for alias in each.aliases
        }
        return dict(sorted(of.items()))

    def drop(self, name: str) -> None:
        """Delete a collection with all its documents and aliases; raises `NotFound` and `NameConflict`."""
        generation = self._named(name).look()
        for alias in sorted(generation.others, key=lambda alias: alias == alias_of(name)):  # its own name at last
            self._client.release(alias)
        if generation.target is not None:
            self._client.drop(generation.target.physical)
        self._client.drop(generation.physical)
        with self._lock:
            self._known.pop(generation.uid, None)

    def rename(self, name: str, to: str) -> MilvusCollection:
        """Give a collection another name, durably; its aliases stay."""
        check_name(to, Place("to"))
        collection = self._named(name)
        self._require_free(to)
        collection.rename(to, partial(self._take, to))
        self._client.release(alias_of(name))
        return collection

    def copy(self, name: str, to: str) -> MilvusCollection:
        """Copy a collection with all its documents to a new one, all or nothing, durably."""
        check_name(to, Place("to"))
        self._require_free(to)
        source = self.get(name)
        of = source.look()
        made = self._made(to, of.definition, of.dim, of.index_kind, of.precisions)
        try:
            source.copy_to(made.physical)
            self._take(to, made.physical)
        except BaseException:
            self._client.drop(made.physical)
            raise
        return self._collection(replace(made, others=(alias_of(to),)))

    def alias(self, alias: str, name: str) -> tuple[MilvusCollection, bool]:
        """Make an alias stand for a collection, in one step where it stood for another one, durably."""
        check_name(alias, Place("alias"), "alias")
        before = self._found(alias)
        if before is not None and before.name == alias:
            raise NameConflict(f"{alias!r} is the name of a collection; choose another alias, or rename it first.")
        collection = self.get(name)

        def claim(physical: str) -> None:
            if not self._client.claim(alias_of(alias), physical):
                self._client.move(alias_of(alias), physical)

        collection.alias(claim)
        return collection, before is None

    def delete_alias(self, alias: str) -> None:
        """Delete an alias, durably, and leave the collection as it is; raises `NotFound`."""
        generation = self._found(alias)
        if generation is None or generation.name == alias:
            raise NotFound(f"there is no alias {alias!r}.")
        self._client.release(alias_of(alias))

    async def compact(self, *, rebuild: bool = False) -> tuple[Space, Space]:
        """Raise `InvalidInput`: Milvus gives its space back by itself."""
        raise InvalidInput(
            "the engine 'milvus' has no space to give back: Milvus compacts what it stores by itself.",
            where=Place("rebuild"),
        )

    async def look(self, read: Callable[..., T], *arguments: Any) -> T:
        """Run a read of names on one of the threads for that, so that nothing else waits while the server is slow."""
        return await asyncio.wrap_future(self._submit(self._lookers, partial(read, *arguments)))

    async def write(self, change: Callable[..., T], *arguments: Any, together: bool = False) -> T:
        """Run a change on the thread of all changes of this process, to its end.

        Changes of other services that use the server are made meanwhile. With `together` it is as without.
        """
        with phase("store"):
            return await asyncio.wrap_future(self._submit(self._writer, partial(self._timed, change, *arguments)))

    @property
    def commits(self) -> Histogram:
        """Seconds that each change took."""
        return self._commits

    def close(self) -> None:
        """Finish the changes in progress and close the connection; later calls raise `StoreUnavailable`."""
        self._writer.shutdown()
        self._lookers.shutdown()
        self._client.close()

    def _timed(self, change: Callable[..., T], *arguments: Any) -> T:
        began = time.monotonic()
        made = change(*arguments)
        self._commits.add(time.monotonic() - began)
        return made

    def _submit(self, threads: ThreadPoolExecutor, work: Callable[[], T]) -> Future[T]:
        try:
            return threads.submit(work)
        except RuntimeError as error:  # which it is after its shutdown
            raise StoreUnavailable("the store is closed, since the service stops. Repeat the request.") from error

    def _made(
        self, name: str, definition: Definition, dim: int, kind: str, precisions: Sequence[str] = ()
    ) -> Generation:
        """Make a Milvus collection that no name stands for yet."""
        chance = random.SystemRandom()
        uid = chance.getrandbits(62)
        made = Generation(
            physical_name(uid, chance.getrandbits(48)),
            uid,
            datetime.now(UTC),
            name,
            definition,
            dim,
            kind,
            precisions=tuple(precisions),
        )
        self._client.create(made.physical, dim, made.index(), made.properties())
        return made

    def _found(self, name: str) -> Generation | None:
        return found(self._client, name) if isinstance(name, str) else None

    def _claim(self, name: str, physical: str) -> bool:
        """Make a name stand for a Milvus collection, and return whether it was free.

        One whose Milvus collection another program has dropped is free, though Milvus keeps the alias.
        """
        for _ in range(_TRIES):
            if self._client.claim(alias_of(name), physical):
                return True
            if self._client.describe(alias_of(name)) is not None:
                return False
            self._client.release(alias_of(name))
        return False

    def _take(self, name: str, physical: str) -> None:
        """Make a name stand for a Milvus collection; raises `NameConflict` where it is taken."""
        if not self._claim(name, physical):
            self._require_free(name)
            raise NameConflict(f"the name {name!r} was taken just now; choose another name, or repeat the request.")

    def _collection(self, generation: Generation) -> MilvusCollection:
        """Return the one object for a collection, which shows what was read of it."""
        with self._lock:
            known = self._known.get(generation.uid)
            if known is None:
                known = self._known[generation.uid] = MilvusCollection(self._client, self._clock, generation)
        known.show(generation)
        return known

    def _named(self, name: str) -> MilvusCollection:
        """Return the collection that has a name as its own; raises `NotFound`, and `NameConflict` for an alias."""
        collection = self.get(name)
        if collection.name != name:
            raise NameConflict(
                f"{name!r} is an alias of collection {collection.name!r}. Name the collection itself, or change the "
                "alias."
            )
        return collection

    def _require_free(self, name: str) -> None:
        """Raise `NameConflict` where a name is taken."""
        generation = self._found(name)
        if generation is None:
            return
        if generation.name != name:
            raise NameConflict(f"{name!r} is an alias of collection {generation.name!r}; choose another name.")
        raise NameConflict(f"there is a collection {name!r} already; choose another name, or drop it first.")
