"""Collections whose vectors come from the served models: documents in, hits out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np

from service.collections import Collection, Collections, Definition
from service.collections.chunking import Chunking, check_spans, embed_documents
from service.collections.provenance import define, embedder_for
from service.collections.reindex import Reindexes, interrupted
from service.collections.writer import Writer
from service.embedding.models import Models
from service.embedding.recipe import Spec
from service.errors import InvalidInput, Place, ServiceError, StaleDefinition, TooLarge
from service.store import Document, Embedded, Hit
from service.store.document import require_distinct

logger = logging.getLogger(__name__)

MOST_HITS: Final = 10_000
"""Hits that one query may ask for."""
MOST_HITS_TOGETHER: Final = 1_000_000
"""Hits that the queries of one request may ask for together: each is a document in memory."""


@dataclass(frozen=True, slots=True)
class Upserted:
    """How many documents a request held, and how many of them were stored just so before."""

    upserted: int
    unchanged: int


class CollectionService:
    """Documents in and hits out, each collection under the embedder it was created with.

    Raises, from every method that reads or writes: `ServiceError`.
    """

    def __init__(self, models: Models, collections: Collections) -> None:
        self._models = models
        self._collections = collections
        self._write = Writer()
        self.reindexes = Reindexes(models, self._write)
        for collection in collections.list():
            self._warn_of(collection)

    async def create(
        self, name: str, model: str | None, spec: Spec | None, index: str, chunking: Chunking | None
    ) -> tuple[Collection, bool]:
        """Create a collection, or find the equal one; tells whether it is new."""
        embedder, definition = define(self._models, model, spec, chunking)
        return await self._write(self._collections.create, name, definition, embedder.dim, index)

    def all(self) -> Sequence[Collection]:
        """All collections, by name."""
        return self._collections.list()

    def get(self, name: str) -> Collection:
        """A collection by name."""
        return self._collections.get(name)

    async def describe(self, collection: Collection) -> dict[str, Any]:
        """What a collection is: its model, pooling, fingerprint, chunking if it has one, size and memory."""

        def sizes() -> tuple[int, int, int]:
            return collection.count(), collection.chunks(), collection.memory_bytes()

        count, chunks, memory = await asyncio.to_thread(sizes)
        definition = collection.definition
        chunked = {"chunking": definition["chunking"], "chunks": chunks} if "chunking" in definition else {}
        return {
            "name": collection.name,
            "model": definition["model"],
            "pooling": definition["pooling"],
            "fingerprint": definition["fingerprint"],
            "dimension": collection.dim,
            "index": collection.index_kind,
            "count": count,
            **chunked,
            "memory_bytes": memory,
            "created": collection.created.isoformat(),
        }

    async def drop(self, name: str) -> None:
        """Delete a collection and all that is in it."""
        collection = self.get(name)
        await self._write(self._collections.drop, name)
        self.reindexes.forget(collection)

    async def upsert(self, name: str, documents: Sequence[Document], *, truncate: bool = False) -> Upserted:
        """Store documents: all of them, durably, or none. Those stored already just so are not embedded again."""
        collection = self.get(name)
        require_distinct(documents)
        while True:
            definition = collection.definition
            embedder = embedder_for(self._models, name, definition)
            check_spans(definition, documents)
            unchanged = await asyncio.to_thread(collection.unchanged, documents)
            places = [place for place, document in enumerate(documents) if document.id not in unchanged]
            changed = [documents[place] for place in places]
            vectors = await embed_documents(
                embedder, definition, changed, truncate=truncate, where=partial(_place, documents, places)
            )
            reindex = self.reindexes.of(collection)
            also = await reindex.vectors(changed, truncate=truncate) if reindex and reindex.running else None
            made = _Made(definition, vectors, also)
            if await self._write(_put, collection, documents, unchanged, changed, made):
                return Upserted(len(documents), len(unchanged))

    async def fetch(self, name: str, document_id: str) -> Document:
        """One document."""
        return await asyncio.to_thread(self.get(name).fetch, document_id)

    async def delete(self, name: str, document_id: str) -> None:
        """Delete one document, durably."""
        await self._write(self.get(name).delete, document_id)

    async def by_text(
        self,
        name: str,
        queries: Sequence[str],
        k: int,
        condition: Mapping[str, Any] | None,
        *,
        grouped: bool = False,
        truncate: bool = False,
        where: Callable[[int], Place],
    ) -> list[list[Hit]]:
        """The `k` best hits for each text, embedded as a query; `grouped`, one hit a document."""
        collection = self.get(name)
        if len(queries) * k > MOST_HITS_TOGETHER:
            raise TooLarge(
                f"{len(queries)} queries for {k} hits each are {len(queries) * k} hits, and one request may ask for "
                f"{MOST_HITS_TOGETHER}; send fewer queries at once, or a smaller k.",
                where=Place("queries"),
                limit=MOST_HITS_TOGETHER,
            )
        while True:
            definition = collection.definition
            embeddings = await embedder_for(self._models, name, definition).embed(
                queries, role="query", truncate="right" if truncate else None, where=where
            )
            find = partial(collection.search, embeddings.vectors, k, condition, grouped=grouped, under=definition)
            with suppress(StaleDefinition):
                return await asyncio.to_thread(find)

    async def by_vector(
        self,
        name: str,
        vector: Sequence[float],
        k: int,
        condition: Mapping[str, Any] | None,
        *,
        grouped: bool = False,
    ) -> list[Hit]:
        """The `k` best hits for a vector that the caller made with the collection's own embedder."""
        collection = self.get(name)
        if len(vector) != collection.dim:
            raise InvalidInput(
                f"vector has {len(vector)} dimensions; collection {name!r} has {collection.dim}.",
                where=Place("vector"),
            )
        query = np.array([vector], dtype=np.float64)
        return (await asyncio.to_thread(partial(collection.search, query, k, condition, grouped=grouped)))[0]

    def close(self) -> None:
        """Finish the writes under way and close the store."""
        self.reindexes.close()
        self._write.close()
        self._collections.close()

    def _warn_of(self, collection: Collection) -> None:
        """Log what hinders a collection from being served, and what was begun on it and not ended."""
        try:
            embedder_for(self._models, collection.name, collection.definition)
        except ServiceError as error:
            logger.warning("%s", error.detail)
        if progress := interrupted(collection):
            logger.warning(
                "collection %r: a reindex was interrupted when %d of %d documents were embedded; "
                "`millpond reindex %s` goes on with it",
                collection.name,
                progress.done,
                progress.total,
                collection.name,
            )


@dataclass(frozen=True, slots=True)
class _Made:
    """Vectors, the definition that they were made under, and those for a reindex that is under way."""

    under: Definition
    vectors: Embedded
    also: tuple[Definition, Embedded] | None


def _place(documents: Sequence[Document], places: Sequence[int], place: int) -> Place:
    index = places[place]
    return Place("documents", index, name=f"documents[{index}].text (id {documents[index].id!r})")


def _put(
    collection: Collection,
    documents: Sequence[Document],
    unchanged: set[str],
    changed: Sequence[Document],
    made: _Made,
) -> bool:
    """Store the changed documents, unless what they were compared or embedded with has changed; tells whether it did.

    All writes are on one thread, so none can come in between.
    """
    if unchanged and not unchanged <= collection.unchanged(documents):
        return False
    try:
        collection.upsert(changed, made.vectors, under=made.under, also=made.also)
    except StaleDefinition:
        return False
    return True


__all__ = ["MOST_HITS", "CollectionService", "Document", "Hit", "Upserted"]
