"""Reindexing: a collection is embedded anew from its stored text, under the models that are served now."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Final, Literal

from pooling import EmptyTextError, PoolingError
from pooling.layers import LayerSpec
from service.collections import Collection, Definition, Engine
from service.collections.provenance import define
from service.collections.vectorize import embed_documents
from service.embedding.chunking import Chunking
from service.embedding.embedder import Embedder
from service.embedding.models import Models
from service.embedding.recipe import Spec
from service.errors import (
    InvalidInput,
    NotFound,
    Place,
    ReindexRunning,
    ServiceError,
    TooLarge,
    TooLong,
    Unavailable,
    UnknownModel,
)
from service.similarity import COSINE, Similarity
from service.store import Document, Embedded

logger = logging.getLogger(__name__)

State = Literal["running", "complete", "failed", "interrupted", "unneeded"]

_MOST_REFUSED: Final = 20
"""Documents that cannot be embedded, after which a reindex looks for no more."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a reindex.

    Args:
        state: `interrupted` where the process ended before it did, `unneeded` where it would change nothing.
        done: documents that have their new vectors.
        total: documents of the collection.
        texts_per_second: documents embedded since it began or went on.
        source: the definition that the collection has, or had before the reindex was complete.
        target: the definition that it is to have.
        error: why it failed.
    """

    state: State
    done: int
    total: int
    texts_per_second: float | None
    source: Definition
    target: Definition
    error: str | None = None


class Reindex:
    """A reindex in the background: `running` until it is `complete`, or has `failed`.

    The collection is served as it was until then. What is embedded is kept, so that another run goes on from there.
    """

    def __init__(
        self,
        collections: Engine,
        collection: Collection,
        embedder: Embedder,
        target: Definition,
        *,
        truncate: bool,
    ) -> None:
        self.target = target
        self.truncate = truncate
        self._collection = collection
        self._embedder = embedder
        self._source = collection.definition
        self._write = collections.write
        self._missing: int | None = None  # documents without new vectors; None until they are counted
        self._embedded = 0
        self._began = self._ended = time.monotonic()
        self._refused: list[str] = []
        self._error: str | None = None
        self._task = asyncio.get_running_loop().create_task(self._run(), context=Context())

    @property
    def running(self) -> bool:
        """Whether the reindex is still running."""
        return not self._task.done()

    @property
    def worked_until(self) -> float:
        """The moment, by `time.monotonic`, of its end: now while it runs."""
        return time.monotonic() if self.running else self._ended

    def progress(self) -> Progress:
        """Return the progress of the reindex."""
        state: State = "running" if self.running else "failed" if self._error else "complete"
        total = self._collection.count()
        missing = 0 if state == "complete" else total if self._missing is None else min(self._missing, total)
        seconds = (time.monotonic() if self.running else self._ended) - self._began
        rate = self._embedded / seconds if self._embedded else None
        return Progress(state, total - missing, total, rate, self._source, self.target, self._error)

    def cancel(self) -> None:
        """Stop the reindex; what was embedded is kept."""
        self._task.cancel()

    async def stopped(self) -> None:
        """Stop the reindex and wait for its end."""
        self.cancel()
        await asyncio.wait([self._task])

    async def vectors(self, documents: Sequence[Document], *, truncate: bool) -> tuple[Definition, Embedded] | None:
        """Embed documents that are about to be stored, so that writers do not outrun the reindex.

        Returns the target and vectors under it; None where they cannot be made, which the reindex then meets itself.
        """
        try:
            return self.target, await self._vectors(documents, truncate=truncate or self.truncate)
        except (ServiceError, PoolingError, EmptyTextError):
            return None

    async def _run(self) -> None:
        try:
            await self._write(self._collection.begin_rebuild, self.target, self._embedder.dim)
            begun = await asyncio.to_thread(self._collection.rebuild)
            self._missing = await asyncio.to_thread(self._collection.count) - (begun.done if begun else 0)
            while not await self._write(self._collection.finish_rebuild):
                await self._embed_all()  # again, while writers add documents without new vectors
            logger.info("collection %r: reindexed under %s", self._collection.name, self.target.fingerprint)
        except (ServiceError, PoolingError, EmptyTextError) as error:
            self._error = str(error)
            logger.warning("collection %r: the reindex failed: %s", self._collection.name, error)
        except Exception:
            self._error = "this is a bug in the service; its log has the details."
            logger.exception("collection %r: the reindex failed", self._collection.name)
        finally:
            self._ended = time.monotonic()

    async def _embed_all(self) -> None:
        """Embed every document without new vectors; raises `InvalidInput` where some cannot be embedded."""
        after: int | None = None
        while batch := await asyncio.to_thread(self._collection.unbuilt, after):
            after = batch[-1][0]
            await self._embed(batch)
        if self._refused:
            raise InvalidInput(_refusal(self._refused))

    async def _embed(self, batch: Sequence[tuple[int, Document]]) -> None:
        """Embed documents and store their vectors; halves a batch until those that are refused stand alone."""
        keys, documents = zip(*batch, strict=True)
        try:
            vectors = await self._patiently(documents)
        except (TooLong, TooLarge, InvalidInput) as error:
            if not isinstance(error, TooLarge) and (error.where is None or error.where.index is None):
                raise  # the fault of no document
            if len(batch) > 1:
                await self._embed(batch[: len(batch) // 2])
                await self._embed(batch[len(batch) // 2 :])
                return
            self._refused.append(_reason(error, _name(documents[0])))
            if len(self._refused) == _MOST_REFUSED:
                raise InvalidInput(_refusal(self._refused)) from None
        else:
            precision = self._embedder.of("document").encoder.runtime.precision
            await self._write(self._collection.put_rebuilt, self.target, keys, vectors, precision)
            self._embedded += len(keys)
            self._missing = max((self._missing or 0) - len(keys), 0)

    async def _patiently(self, documents: Sequence[Document]) -> Embedded:
        """Embed documents, waiting for as long as the encoder's queue is full."""
        while True:
            try:
                return await self._vectors(documents, truncate=self.truncate)
            except Unavailable as error:
                await asyncio.sleep(error.retry_after)

    async def _vectors(self, documents: Sequence[Document], *, truncate: bool) -> Embedded:
        def where(index: int) -> Place:
            return Place("documents", index, name=_name(documents[index]))

        return await embed_documents(self._embedder, self.target.chunking, documents, truncate=truncate, where=where)


class Reindexes:
    """The reindexes of a service, at most one for each collection.

    `last` is the last reindex of each collection since the service was started.
    """

    def __init__(self, models: Models, collections: Engine) -> None:
        self._models = models
        self._collections = collections
        self.last: dict[Collection, Reindex] = {}

    async def begin(
        self,
        collection: Collection,
        model: str | None,
        spec: Spec | None,
        chunking: Chunking | None,
        similarity: Similarity | None = None,
        layers: LayerSpec | None = None,
        *,
        truncate: bool,
        force: bool,
    ) -> Progress:
        """Begin to embed a collection anew, go on with it, or join the run that does.

        It keeps its model unless one is given, and its pooling, layers and similarity unless a model or others are.
        `force` embeds it even if nothing would change. Raises `ReindexRunning` while a reindex to something else
        runs, and `UnknownModel` or `InvalidInput` for what is not served.
        """
        begun = await asyncio.to_thread(collection.rebuild)
        embedder, target = self._target(collection, model, spec, chunking, similarity, layers)
        last = self.last.get(collection)
        if last is not None and last.running:
            if (last.target, last.truncate) != (target, truncate):
                raise ReindexRunning(
                    f"a reindex of collection {collection.name!r} to {_described(last.target)} is under way "
                    f"({'with' if last.truncate else 'without'} truncation). Wait for it, or stop it with "
                    f"`millpond reindex {collection.name} --abandon`."
                )
        elif target == collection.definition and not force and (begun is None or begun.definition != target):
            count = await asyncio.to_thread(collection.count)
            return Progress("unneeded", count, count, None, target, target)
        else:
            last = self.last[collection] = Reindex(self._collections, collection, embedder, target, truncate=truncate)
        return await asyncio.to_thread(last.progress)

    async def progress(self, collection: Collection) -> Progress:
        """Return the progress of a collection's reindex; raises `NotFound` where there is none."""
        last = self.last.get(collection)
        if last is not None:
            return await asyncio.to_thread(last.progress)
        found = await asyncio.to_thread(interrupted, collection)
        if found is None:
            raise NotFound(
                f"collection {collection.name!r} has no reindex. Begin one with `millpond reindex {collection.name}`."
            )
        return found

    async def abandon(self, collection: Collection) -> None:
        """Stop a collection's reindex and drop the vectors it made; raises `NotFound` where there is none."""
        last = self.last.get(collection)
        if last is not None:
            await last.stopped()
        self.forget(collection)
        if not await self._collections.write(collection.abandon_rebuild):
            raise NotFound(f"collection {collection.name!r} has no reindex that could be abandoned.")

    def forget(self, collection: Collection) -> None:
        """Stop the reindex of a collection that was dropped."""
        if (last := self.last.pop(collection, None)) is not None:
            last.cancel()

    def close(self) -> None:
        """Stop every reindex; each can go on after the next start."""
        for last in self.last.values():
            last.cancel()

    def _target(
        self,
        collection: Collection,
        model: str | None,
        spec: Spec | None,
        chunking: Chunking | None,
        similarity: Similarity | None,
        layers: LayerSpec | None,
    ) -> tuple[Embedder, Definition]:
        if model is not None:
            return define(self._models, model, spec, chunking, similarity, layers)
        stored = collection.definition
        if stored.foreign:
            raise InvalidInput(
                f"collection {collection.name!r} holds foreign vectors, which no model here makes anew. To give its "
                "texts vectors of a model instead, name the model.",
                where=Place("model"),
            )
        spec = stored.asked_pooling if spec is None else spec
        layers = stored.asked_layers if layers is None else layers
        try:
            return define(self._models, stored.model, spec, chunking, similarity or stored.similarity, layers)
        except UnknownModel as error:
            raise InvalidInput(
                f"collection {collection.name!r} was built with a model that is not there: {error.detail} Name the "
                "model that it is to have.",
                where=Place("model"),
            ) from None


def interrupted(collection: Collection) -> Progress | None:
    """Return the progress of a reindex that an earlier process began and did not end, if there is one."""
    begun = collection.rebuild()
    if begun is None:
        return None
    return Progress("interrupted", begun.done, collection.count(), None, collection.definition, begun.definition)


def _described(definition: Definition) -> str:
    chunking = "" if definition.chunking is None else f" and chunking {json.dumps(definition.chunking.to_json())}"
    similarity = "" if definition.similarity is COSINE else f" and similarity {definition.similarity.name!r}"
    layers = "" if definition.layers is None else f" and layers {json.dumps(definition.layers)}"
    return f"model {definition.model!r} with pooling {definition.pooling!r}{layers}{chunking}{similarity}"


def _name(document: Document) -> str:
    return f"document {document.id!r}"


def _reason(error: TooLong | TooLarge | InvalidInput, name: str) -> str:
    if isinstance(error, TooLong):
        return f"{error.where} has {error.extra['length']} tokens and the model takes {error.extra['limit']}"
    detail = error.detail.rstrip(".")
    return detail if name in detail else f"{name}: {detail}"


def _refusal(refused: Sequence[str]) -> str:
    many = f"{len(refused)} documents" if len(refused) > 1 else "a document"
    more = " (and maybe others)" if len(refused) == _MOST_REFUSED else ""
    return (
        f"{many}{more} cannot be embedded: {'; '.join(refused)}. Change or delete them, or where they are too long "
        'reindex with truncation (`--truncate`, "truncate": true). What is embedded is kept, and the collection is '
        "served as it was."
    )
