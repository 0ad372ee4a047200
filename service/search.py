"""Search by meaning: collections whose vectors come from the served models."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

import numpy as np

from service.collections import Collection, CollectionError, Collections, Document, Hit
from service.collections.document import require_distinct
from service.embedder import Embedder
from service.errors import FingerprintMismatch, InvalidInput, ServiceError, TooLarge
from service.models import Models
from service.recipe import Spec
from service.windows import Vectors

logger = logging.getLogger(__name__)

MOST_HITS: Final = 10_000
"""Hits that one query may ask for."""
MOST_HITS_TOGETHER: Final = 1_000_000
"""Hits that the queries of one request may ask for together: each is a document in memory."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Upserted:
    """How many documents a request held, and how many of them were stored just so before."""

    upserted: int
    unchanged: int


class Search:
    """Documents in and hits out, each collection under the embedder it was created with.

    Raises, from every method that reads or writes: `CollectionError` and `ServiceError`.
    """

    def __init__(self, models: Models, collections: Collections) -> None:
        self._models = models
        self._collections = collections
        # The store takes one writer at a time; waiting writers must not hold up the threads that search.
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer")
        for collection in collections.list():
            try:
                self._embedder(collection)
            except ServiceError as error:
                logger.warning("%s", error.detail)

    async def create(self, name: str, model: str | None, spec: Spec | None, index: str) -> tuple[Collection, bool]:
        """Create a collection, or find the equal one; tells whether it is new."""
        embedder = self._models.get(model, spec)
        if embedder.fingerprint == self._models.get(model).fingerprint:
            spec = None  # the model's own pooling, however it was spelled
        definition = {
            "model": embedder.name,
            "asked_pooling": spec,
            "fingerprint": embedder.fingerprint,
            **embedder.fingerprint_parts,
        }
        return await self._write(self._collections.create, name, definition, embedder.dim, index)

    def all(self) -> Sequence[Collection]:
        """All collections, by name."""
        return self._collections.list()

    def get(self, name: str) -> Collection:
        """A collection by name."""
        return self._collections.get(name)

    async def describe(self, collection: Collection) -> dict[str, Any]:
        """What a collection is: its model, pooling, fingerprint, size and memory."""
        count, memory = await asyncio.to_thread(lambda: (collection.count(), collection.memory_bytes()))
        definition = collection.definition
        return {
            "name": collection.name,
            "model": definition["model"],
            "pooling": definition["pooling"],
            "fingerprint": definition["fingerprint"],
            "dimension": collection.dim,
            "index": collection.index_kind,
            "count": count,
            "memory_bytes": memory,
            "created": collection.created.isoformat(),
        }

    async def drop(self, name: str) -> None:
        """Delete a collection and all that is in it."""
        await self._write(self._collections.drop, name)

    async def upsert(self, name: str, documents: Sequence[Document], *, truncate: bool = False) -> Upserted:
        """Store documents: all of them, durably, or none. Those stored already just so are not embedded again."""
        collection = self.get(name)
        embedder = self._embedder(collection)
        require_distinct(documents)
        while True:
            unchanged = await asyncio.to_thread(collection.unchanged, documents)
            places = [place for place, document in enumerate(documents) if document.id not in unchanged]
            changed = [documents[place] for place in places]
            embeddings = await embedder.embed(
                [document.text for document in changed],
                role="document",
                truncate="right" if truncate else None,
                where=partial(_place, documents, places),
            )
            if await self._write(_put, collection, documents, unchanged, changed, embeddings.vectors):
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
        truncate: bool = False,
        where: Callable[[int], str],
    ) -> list[list[Hit]]:
        """The `k` best hits for each text, embedded as a query."""
        collection = self.get(name)
        if len(queries) * k > MOST_HITS_TOGETHER:
            raise TooLarge(
                f"{len(queries)} queries for {k} hits each are {len(queries) * k} hits, and one request may ask for "
                f"{MOST_HITS_TOGETHER}; send fewer queries at once, or a smaller k.",
                where="queries",
                limit=MOST_HITS_TOGETHER,
            )
        embeddings = await self._embedder(collection).embed(
            queries, role="query", truncate="right" if truncate else None, where=where
        )
        return await asyncio.to_thread(collection.search, embeddings.vectors, k, condition)

    async def by_vector(
        self, name: str, vector: Sequence[float], k: int, condition: Mapping[str, Any] | None
    ) -> list[Hit]:
        """The `k` best hits for a vector that the caller made with the collection's own embedder."""
        collection = self.get(name)
        if len(vector) != collection.dim:
            raise InvalidInput(
                f"vector has {len(vector)} dimensions; collection {name!r} has {collection.dim}.", where="vector"
            )
        query = np.array([vector], dtype=np.float64)
        return (await asyncio.to_thread(collection.search, query, k, condition))[0]

    def close(self) -> None:
        """Finish the writes under way and close the store."""
        self._writer.shutdown()
        self._collections.close()

    def _embedder(self, collection: Collection) -> Embedder:
        """The embedder a collection was created with.

        Raises:
            FingerprintMismatch: the deployment would now give other vectors than those stored.

        """
        stored = collection.definition
        try:
            embedder = self._models.get(stored["model"], stored["asked_pooling"])
        except ServiceError as error:
            raise FingerprintMismatch(
                f"collection {collection.name!r} was built with model {stored['model']!r}, which cannot "
                f"answer for it now: {error.detail} Serve that model as it was, or build the collection anew.",
                stored=stored,
            ) from None
        if embedder.fingerprint == stored["fingerprint"]:
            return embedder
        served = {**embedder.fingerprint_parts, "fingerprint": embedder.fingerprint, "model": embedder.name}
        differences = {
            key: {"stored": stored.get(key), "served": served[key]}
            for key in sorted(served)
            if stored.get(key) != served[key]
        }
        spelled = "; ".join(f"{key}: {side['stored']!r}, now {side['served']!r}" for key, side in differences.items())
        raise FingerprintMismatch(
            f"collection {collection.name!r} holds vectors that model {embedder.name!r} would no longer give "
            f"({spelled}), and the two cannot be compared. Serve the model as it was, or build the collection anew.",
            stored=stored,
            served=served,
            differences=differences,
        )

    async def _write(self, change: Callable[..., T], *arguments: Any) -> T:
        """Run a change to its end, even where the client that asked for it has gone."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._writer, partial(change, *arguments))


def _place(documents: Sequence[Document], places: Sequence[int], place: int) -> str:
    return f"documents[{places[place]}].text (id {documents[places[place]].id!r})"


def _put(
    collection: Collection,
    documents: Sequence[Document],
    unchanged: set[str],
    changed: Sequence[Document],
    vectors: Vectors,
) -> bool:
    """Store the changed documents, unless one that was unchanged no longer is; tells whether it did.

    All writes are on one thread, so none can come in between.
    """
    if unchanged and not unchanged <= collection.unchanged(documents):
        return False
    collection.upsert(changed, vectors)
    return True


__all__ = ["MOST_HITS", "CollectionError", "Document", "Hit", "Search", "Upserted"]
