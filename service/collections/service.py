"""Documents in, hits out: collections whose vectors come from the served models."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Final

import numpy as np

from service.collections import Collection, Collections, Hit
from service.collections.provenance import Definition, carried_over, changed_rules, define, mismatch, unserved
from service.collections.reindex import Reindexes, interrupted
from service.collections.vectorize import check_spans, embed_documents
from service.embedding.chunking import Chunking
from service.embedding.embedder import Embedder
from service.embedding.fingerprint import SCHEME
from service.embedding.models import Models
from service.embedding.recipe import Spec
from service.errors import InvalidInput, NotFound, Place, ServiceError, StaleDefinition, TooLarge
from service.index import IndexState
from service.similarity import SIMILARITIES, Similarity
from service.store import Document
from service.store.document import require_distinct

logger = logging.getLogger(__name__)

MOST_HITS: Final = 10_000
"""Hits that one query may ask for."""
MOST_HITS_TOGETHER: Final = 1_000_000
"""Hits that the queries of one request may ask for together; the documents of all are in memory at once."""


@dataclass(frozen=True, slots=True)
class Upserted:
    """The number of documents of a request, and how many of them were stored in equal form before."""

    upserted: int
    unchanged: int


class CollectionService:
    """Stores and searches documents, those of each collection under the embedder of its definition.

    Every method that reads or writes raises `ServiceError`.
    """

    def __init__(self, models: Models, collections: Collections) -> None:
        self._models = models
        self._collections = collections
        self.reindexes = Reindexes(models, collections)
        self._changed: dict[Collection, list[str]] = {}
        for collection in collections.list():
            self._carry_over(collection)
            self._warn_about(collection)

    async def create(
        self,
        name: str,
        model: str | None,
        spec: Spec | None,
        index: str | None,
        chunking: Chunking | None,
        similarity: Similarity | None = None,
        recall: float | None = None,
    ) -> tuple[Collection, bool]:
        """Create a collection or return the equal one that exists, and whether it is new.

        One that exists has its own similarity, kind of index and recall, where none is asked for.
        """
        if similarity is None:
            with suppress(NotFound):
                similarity = self.get(name).definition.similarity
        embedder, definition = define(self._models, model, spec, chunking, similarity)
        return await self._collections.write(self._collections.create, name, definition, embedder.dim, index, recall)

    def all(self) -> Sequence[Collection]:
        """Return all collections, ordered by name."""
        return self._collections.list()

    def get(self, name: str) -> Collection:
        """Return a collection by name; raises `NotFound`."""
        return self._collections.get(name)

    async def describe(self, collection: Collection) -> dict[str, Any]:
        """Return what a collection is made with, how large it is, and the memory of its index."""

        def sizes() -> tuple[int, int, int, list[str], IndexState]:
            sizes = collection.count(), collection.chunks(), collection.memory_bytes()
            return *sizes, collection.precisions(), collection.index_state()

        count, chunks, memory, precisions, state = await asyncio.to_thread(sizes)
        definition = collection.definition
        chunking = definition.chunking
        chunked = {} if chunking is None else {"chunking": chunking.to_json(), "chunks": chunks}
        return {
            "name": collection.name,
            "model": definition.model,
            "pooling": definition.pooling,
            "fingerprint": definition.fingerprint,
            "dimension": collection.dim,
            "index": collection.index_kind,
            "index_state": {name: value for name, value in asdict(state).items() if value is not None},
            "similarity": definition.similarity.name,
            "precisions": precisions,
            "count": count,
            **chunked,
            "memory_bytes": memory,
            "created": collection.created.isoformat(),
        }

    async def drop(self, name: str) -> None:
        """Delete a collection with all its documents."""
        collection = self.get(name)
        await self._collections.write(self._collections.drop, name)
        self.reindexes.forget(collection)

    async def upsert(self, name: str, documents: Sequence[Document], *, truncate: bool = False) -> Upserted:
        """Store all documents, durably, or none. Those that are stored in equal form are not embedded again."""
        collection = self.get(name)
        require_distinct(documents)
        while True:
            definition = collection.definition
            embedder = self._embedder(name, definition)
            check_spans(definition.chunking, documents)
            unchanged = await asyncio.to_thread(collection.unchanged, documents)
            places = [index for index, document in enumerate(documents) if document.id not in unchanged]
            changed = [documents[index] for index in places]
            where = partial(_place, documents, places)
            vectors = await embed_documents(embedder, definition.chunking, changed, truncate=truncate, where=where)
            reindex = self.reindexes.last.get(collection)
            also = await reindex.vectors(changed, truncate=truncate) if reindex and reindex.running else None
            precision = embedder.encoder.runtime.precision if changed else None
            store = partial(collection.upsert, changed, vectors, under=definition, also=also, precision=precision)
            if await self._collections.write(_store, collection, documents, unchanged, store):
                return Upserted(len(documents), len(unchanged))

    async def fetch(self, name: str, document_id: str) -> Document:
        """Return a document by id."""
        return await asyncio.to_thread(self.get(name).fetch, document_id)

    async def delete(self, name: str, document_id: str) -> None:
        """Delete a document, durably."""
        await self._collections.write(self.get(name).delete, document_id)

    async def by_text(
        self,
        name: str,
        queries: Sequence[str],
        k: int,
        condition: Mapping[str, Any] | None,
        *,
        grouped: bool = False,
        exact: bool = False,
        truncate: bool = False,
        where: Callable[[int], Place],
    ) -> list[list[Hit]]:
        """Embed texts as queries and return the `k` best hits for each; with `grouped`, one hit a document.

        With `exact`, every vector is compared.
        """
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
            embeddings = await self._embedder(name, definition).embed(
                queries, role="query", truncate="right" if truncate else None, where=where
            )
            find = partial(
                collection.search, embeddings.vectors, k, condition, grouped=grouped, exact=exact, under=definition
            )
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
        exact: bool = False,
    ) -> list[Hit]:
        """Return the `k` best hits for a vector that the caller made with the collection's embedder."""
        collection = self.get(name)
        if len(vector) != collection.dim:
            raise InvalidInput(
                f"vector has {len(vector)} dimensions; collection {name!r} has {collection.dim}.",
                where=Place("vector"),
            )
        query = np.array([vector], dtype=np.float64)
        return (
            await asyncio.to_thread(partial(collection.search, query, k, condition, grouped=grouped, exact=exact))
        )[0]

    def close(self) -> None:
        """Stop reindexes, finish the changes in progress and close the store."""
        self.reindexes.close()
        self._collections.close()

    def _embedder(self, name: str, stored: Definition) -> Embedder:
        """Return the embedder of a collection's definition.

        Raises:
            FingerprintMismatch: the models served now would not make the vectors that the collection holds.
        """
        try:
            embedder = self._models.get(stored.model, stored.asked_pooling)
        except ServiceError as error:
            raise unserved(name, stored, error) from None
        if embedder.fingerprint != stored.fingerprint:
            rules = self._changed.get(self.get(name), []) if stored.scheme < SCHEME else []
            raise mismatch(name, stored, embedder, rules)
        return embedder

    def _carry_over(self, collection: Collection) -> None:
        """Give a collection of an earlier release its present fingerprint, where its vectors are unchanged."""
        rebuild = collection.rebuild()
        definition, rules = self._renewed(collection, collection.definition)
        target, _ = self._renewed(collection, rebuild.definition) if rebuild else (None, [])
        if rules:
            self._changed[collection] = rules
        if definition or target:
            collection.relabel(definition or collection.definition, target)
            logger.info("collection %r has the vectors of this release, and is relabelled so", collection.name)

    def _renewed(self, collection: Collection, stored: Definition) -> tuple[Definition | None, list[str]]:
        """Return an older definition as it is now, None where it may not be that, and the rules that forbid it."""
        if stored.scheme >= SCHEME:
            return None, []
        try:
            embedder = self._models.get(stored.model, stored.asked_pooling)
        except ServiceError:
            return None, []  # as `_warn_about` says
        rules = changed_rules(stored, embedder, collection.documents)
        return (carried_over(stored, embedder) if rules == [] else None), rules or []

    def _warn_about(self, collection: Collection) -> None:
        """Log why a collection cannot be served, and a reindex of it that was interrupted."""
        stored = collection.definition
        try:
            embedder = self._embedder(collection.name, stored)
        except ServiceError as error:
            logger.warning("%s", error.detail)
        else:
            declared, served = embedder.recipe.checkpoint.similarity, embedder.encoder.runtime.precision
            filled = collection.precisions()
            if filled and served not in filled:
                logger.warning(
                    "collection %r was filled in %s, and model %r runs in %s now: scores differ a little; set "
                    "runtime.precision: %s, or reindex with --force",
                    *(collection.name, " and ".join(filled), stored.model, served, filled[0]),
                )
            if declared != stored.similarity.name and declared in SIMILARITIES:
                logger.warning(
                    "collection %r is searched by %s, and its model %r declares %s; `millpond reindex %s "
                    "--similarity %s` follows the model",
                    collection.name,
                    stored.similarity.name,
                    stored.model,
                    declared,
                    collection.name,
                    declared,
                )
        if progress := interrupted(collection):
            logger.warning(
                "collection %r: a reindex was interrupted when %d of %d documents were embedded; "
                "`millpond reindex %s` goes on with it",
                collection.name,
                progress.done,
                progress.total,
                collection.name,
            )


def _place(documents: Sequence[Document], places: Sequence[int], place: int) -> Place:
    index = places[place]
    return Place("documents", index, name=f"documents[{index}].text (id {documents[index].id!r})")


def _store(
    collection: Collection, documents: Sequence[Document], unchanged: set[str], upsert: Callable[[], int]
) -> bool:
    """Upsert, unless what the documents were compared or embedded with has changed since; return whether it did.

    It runs on the thread of all writes, so that no other write comes between the comparison and the upsert.
    """
    if unchanged and not unchanged <= collection.unchanged(documents):
        return False
    try:
        upsert()
    except StaleDefinition:
        return False
    return True
