"""Collections made anew from their stored text, under the models and poolings that are served now."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

from pooling import EmptyTextError, PoolingError
from service.collections import Collection, Definition
from service.collections.chunking import Chunking, embed_documents
from service.collections.provenance import define
from service.collections.writer import Writer
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
from service.store import Document, Embedded

logger = logging.getLogger(__name__)

State = Literal["running", "complete", "failed", "interrupted", "unneeded"]

_MOST_REFUSED: Final = 20
"""Documents that cannot be embedded, after which it is no use to look for more."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a reindex is.

    Args:
        state: `unneeded` where the collection is already what was asked for.
        done: documents that have their new vector.
        total: documents of the collection.
        texts_per_second: embedded since it began or went on.
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
    """One run, in the background: until the collection is exchanged, or what hinders that is known.

    The collection is served as it was meanwhile. What is embedded is kept, so that another run goes on from there.
    """

    def __init__(
        self, collection: Collection, embedder: Embedder, target: Definition, write: Writer, *, truncate: bool
    ) -> None:
        self.collection = collection
        self.embedder = embedder
        self.source = collection.definition
        self.target = target
        self.truncate = truncate
        self._write = write
        self._missing: int | None = None  # documents without a new vector; None until they are counted
        self._embedded = 0
        self._began = self._ended = time.monotonic()
        self._refused: list[str] = []
        self._error: str | None = None
        self._task = asyncio.get_running_loop().create_task(self._to_the_end())

    @property
    def running(self) -> bool:
        """Whether it goes on."""
        return not self._task.done()

    def progress(self) -> Progress:
        """How far it is."""
        total = self.collection.count()
        complete = not self.running and self._error is None
        missing = 0 if complete else total if self._missing is None else min(self._missing, total)
        seconds = (time.monotonic() if self.running else self._ended) - self._began
        return Progress(
            state="running" if self.running else "complete" if complete else "failed",
            done=total - missing,
            total=total,
            texts_per_second=self._embedded / seconds if self._embedded else None,
            source=self.source,
            target=self.target,
            error=self._error,
        )

    def cancel(self) -> None:
        """Give it up; what was embedded stays."""
        self._task.cancel()

    async def stopped(self) -> None:
        """Give it up, and wait until it has."""
        self.cancel()
        await asyncio.wait([self._task])

    async def vectors(self, documents: Sequence[Document], *, truncate: bool) -> tuple[Definition, Embedded] | None:
        """New vectors for documents that are about to be stored, so that writers do not outrun the reindex.

        None where there are none: the documents' turn comes later, and what is wrong with them is said then.
        """
        try:
            return self.target, await embed_documents(
                self.embedder,
                self.target,
                documents,
                truncate=truncate or self.truncate,
                where=lambda place: Place("documents", place),
            )
        except (ServiceError, PoolingError, EmptyTextError):
            return None

    async def _to_the_end(self) -> None:
        try:
            await self._run()
            logger.info("collection %r: reindexed under %s", self.collection.name, self.target["fingerprint"])
        except (ServiceError, PoolingError, EmptyTextError) as error:
            self._error = str(error)
            logger.warning("collection %r: the reindex failed: %s", self.collection.name, error)
        except Exception:
            self._error = "this is a bug in the service; its log has the details."
            logger.exception("collection %r: the reindex failed", self.collection.name)
        finally:
            self._ended = time.monotonic()

    async def _run(self) -> None:
        await self._write(self.collection.begin_rebuild, self.target, self.embedder.dim)
        begun = await asyncio.to_thread(self.collection.rebuild)
        self._missing = self.collection.count() - (begun.done if begun else 0)
        while True:
            after = 0
            while batch := await asyncio.to_thread(self.collection.unbuilt, after):
                after = batch[-1][0]
                await self._embed(dict(batch))
            if self._refused:
                raise InvalidInput(_refusal(self._refused))
            if await self._write(self.collection.finish_rebuild):
                return

    async def _embed(self, documents: dict[int, Document]) -> None:
        """Embed documents and keep their vectors, without those that the model does not take, which are noted."""
        while documents:
            keys = list(documents)
            names = [f"document {document.id!r}" for document in documents.values()]
            try:
                vectors = await embed_documents(
                    self.embedder,
                    self.target,
                    list(documents.values()),
                    truncate=self.truncate,
                    where=partial(_named, names),
                )
            except Unavailable as error:
                await asyncio.sleep(error.retry_after)
            except (TooLong, TooLarge, InvalidInput) as error:
                place = _at_fault(error, len(keys))
                if place is None:
                    half = len(keys) // 2
                    await self._embed({key: documents[key] for key in keys[:half]})
                    documents = {key: documents[key] for key in keys[half:]}
                    continue
                self._refused.append(_reason(error, names[place]))
                if len(self._refused) == _MOST_REFUSED:
                    raise InvalidInput(_refusal(self._refused)) from None
                del documents[keys[place]]
            else:
                await self._write(self.collection.put_rebuilt, self.target, keys, vectors)
                self._embedded += len(keys)
                self._missing = max((self._missing or 0) - len(keys), 0)
                return


class Reindexes:
    """The reindexes of a service, at most one for each collection."""

    def __init__(self, models: Models, write: Writer) -> None:
        self._models = models
        self._write = write
        self._last: dict[str, Reindex] = {}

    async def begin(
        self,
        collection: Collection,
        model: str | None,
        spec: Spec | None,
        chunking: Chunking | None,
        *,
        truncate: bool,
        force: bool,
    ) -> Progress:
        """Begin to embed a collection anew, go on with it, or join the run that does.

        Args:
            collection: the collection.
            model: the model it is to have; its own by default.
            spec: the pooling: by default the one that was asked for when it was made, or where a model is named
                that model's own.
            chunking: how its documents are to be cut; None: one vector for each.
            truncate: cut a text that is too long for the model instead of refusing it.
            force: embed it also where it is what was asked for already.

        Raises:
            ReindexRunning: towards something else.
            UnknownModel, InvalidInput: what is asked for is not served.

        """
        begun = await asyncio.to_thread(collection.rebuild)
        embedder, target = self._target(collection, model, spec, chunking)
        last = self.of(collection)
        if last is not None and last.running:
            if (last.target, last.truncate) != (target, truncate):
                raise ReindexRunning(
                    f"a reindex of collection {collection.name!r} to {_said(last.target)} is under way "
                    f"({'with' if last.truncate else 'without'} truncation). Wait for it, or stop it with "
                    f"`millpond reindex {collection.name} --abandon`."
                )
        elif target == collection.definition and not force and (begun is None or begun.definition != target):
            count = await asyncio.to_thread(collection.count)
            return Progress("unneeded", count, count, None, target, target)
        else:
            last = self._last[collection.name] = Reindex(collection, embedder, target, self._write, truncate=truncate)
        return await asyncio.to_thread(last.progress)

    async def progress(self, collection: Collection) -> Progress:
        """How far the reindex of a collection is; raises `NotFound` where there is none."""
        last = self.of(collection)
        if last is not None:
            return await asyncio.to_thread(last.progress)
        found = await asyncio.to_thread(interrupted, collection)
        if found is None:
            raise NotFound(
                f"collection {collection.name!r} has no reindex. Begin one with `millpond reindex {collection.name}`."
            )
        return found

    async def abandon(self, collection: Collection) -> None:
        """Stop the reindex of a collection and drop what it made; raises `NotFound` where there is none."""
        last = self.of(collection)
        if last is not None:
            await last.stopped()
        self.forget(collection)
        if not await self._write(collection.abandon_rebuild):
            raise NotFound(f"collection {collection.name!r} has no reindex that could be abandoned.")

    def of(self, collection: Collection) -> Reindex | None:
        """The last reindex of a collection since the service was started."""
        last = self._last.get(collection.name)
        return last if last is not None and last.collection is collection else None

    def forget(self, collection: Collection) -> None:
        """Give up the reindex of a collection that is dropped."""
        if (last := self.of(collection)) is not None:
            last.cancel()
            del self._last[collection.name]

    def close(self) -> None:
        """Give up all that run; each can go on after the next start."""
        for last in self._last.values():
            last.cancel()

    def _target(
        self, collection: Collection, model: str | None, spec: Spec | None, chunking: Chunking | None
    ) -> tuple[Embedder, Definition]:
        stored = collection.definition
        if model is not None:
            return define(self._models, model, spec, chunking)
        try:
            return define(self._models, stored["model"], stored["asked_pooling"] if spec is None else spec, chunking)
        except UnknownModel as error:
            raise InvalidInput(
                f"collection {collection.name!r} was built with a model that is not there: {error.detail} Name the "
                "model that it is to have.",
                where=Place("model"),
            ) from None


def interrupted(collection: Collection) -> Progress | None:
    """How far a reindex is that the end of a process cut short, where there is one."""
    begun = collection.rebuild()
    if begun is None:
        return None
    return Progress("interrupted", begun.done, collection.count(), None, collection.definition, begun.definition)


def _said(definition: Definition) -> str:
    chunking = f" and chunking {json.dumps(definition['chunking'])}" if "chunking" in definition else ""
    return f"model {definition['model']!r} with pooling {definition['pooling']!r}{chunking}"


def _named(names: Sequence[str], place: int) -> Place:
    return Place("documents", place, name=names[place])


def _at_fault(error: TooLong | TooLarge | InvalidInput, documents: int) -> int | None:
    """Return the index of the document that an error is about; None where they are too large together."""
    if error.where is not None and error.where.index is not None:
        return error.where.index
    if not isinstance(error, TooLarge):
        raise error
    return 0 if documents == 1 else None


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
