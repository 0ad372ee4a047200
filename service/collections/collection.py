"""One collection: its documents in the store, and the index over their vectors."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Condition
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service import index as indexes
from service.arrays import Keys, Vectors
from service.collections.builder import Builder
from service.collections.provenance import Definition
from service.errors import NotFound, StaleDefinition
from service.index import BuiltIndex, DamagedSnapshot, IndexState, IndexView, VectorIndex
from service.store.document import (
    Document,
    Embedded,
    Span,
    checked_id,
    checked_text,
    checked_vectors,
    encoded_metadata,
    require_distinct,
    validate,
)
from service.store.filters import compile_filter
from service.store.store import Store
from service.store.transaction import CollectionRow, RebuildRow, Transaction

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Hit:
    """A document that a search found, or a span of one; `score` is by the collection's similarity."""

    id: str
    score: float
    text: str
    metadata: dict[str, Any]
    span: Span | None = None


@dataclass(frozen=True, slots=True)
class Rebuild:
    """The definition that a collection is to have, and how many documents have their vectors under it."""

    definition: Definition
    done: int


class Collection:
    """Documents that can be searched by vector; every method is thread-safe.

    A document has one vector, or one for each of its spans. A search sees all of an upsert or none of it: the commit
    and the publishing of the changed index happen under a write lock, and under the read lock a search takes the
    index as it is together with a snapshot of the store. It goes on without a lock, so that neither waits for the
    other. Every method raises `NotFound` once the collection is dropped, and `StoreUnavailable` where
    the store cannot be read or written.

    A rebuild changes the definition and with it every vector: new vectors are collected beside those that are
    searched, over any number of runs of the process, and replace them all at once.
    """

    def __init__(self, store: Store, row: CollectionRow, builder: Builder, snapshots: Path) -> None:
        self.name = row.name
        self.created = row.created
        """In UTC."""
        self.index_kind = row.index_kind
        self.recall = row.recall
        """What was asked of an index that approximates; None for the kind's own."""
        self.definition = Definition.from_json(row.definition)
        """What its vectors are made under: what it was created with, or last rebuilt under."""
        self._store = store
        self._row = row
        self._builder = builder
        self._snapshots = snapshots
        self._lock = ReadWriteLock()
        self._dropped = False
        self._index: VectorIndex | None = self._loaded_index()  # None where it must be loaded before the next change
        self._view: IndexView | None = self._index.view()  # what is searched; None where the next reader must load it
        self._ask_for_build()

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        return self._row.dim

    def count(self) -> int:
        """Return the number of documents."""
        with self._reading() as index:
            return index.count

    def chunks(self) -> int:
        """Return the number of vectors."""
        with self._reading() as index:
            return len(index)

    def memory_bytes(self) -> int:
        """Return the bytes of memory that the index holds."""
        with self._reading() as index:
            return index.memory_bytes

    def index_state(self) -> IndexState:
        """Return how the index searches now."""
        with self._reading() as index:
            return index.state

    def build(self, stopped: Callable[[], bool]) -> bool:
        """Build the part of the index that is due, aside from changes and searches, and publish it.

        Returns whether another is due already. Ends without it where `stopped` becomes true, where the index is
        replaced meanwhile, or where it cannot be built, which the index's state then says.
        """
        with self._store.writing():  # keeps changes away
            index = self._index
            if not isinstance(index, BuiltIndex) or not index.due:
                return False
            begun = index.begin()
        part, problem = None, None
        try:
            part = begun.run(stopped)
        except Exception as error:
            problem = f"the index cannot be built: {error}"
            logger.exception("collection %r: the index cannot be built; it is searched exactly", self.name)
        with self._store.writing() as transaction:
            if self._index is not index:
                self._remove_snapshot(None if part is None else index.adopt(part))
                return True
            before, row = self._row.snapshot, self._row
            if part is None:
                index.abandon(problem)
            else:
                row = transaction.name_snapshot(row, index.adopt(part))
            with self._lock.writing():
                transaction.commit()
                self._row, self._view = row, index.view()
        if part is not None:
            self._remove_snapshot(before)
        return index.due

    def unchanged(self, documents: Sequence[Document]) -> set[str]:
        """Return the ids of the documents that are stored with equal text, metadata and, where given, spans.

        They need not be embedded again. Raises `InvalidDocument`.
        """
        asked = {checked_id(document.id): document for document in documents}
        with self._reading():
            stored = self._store.by_ids(self._row.key, list(asked))
        return {
            document_id
            for document_id, known in stored.items()
            if known.text == checked_text(asked[document_id])
            and asked[document_id].spans in (None, known.spans)
            and _canonical(known) == _canonical(asked[document_id])
        }

    def upsert(
        self,
        documents: Sequence[Document],
        vectors: Embedded,
        *,
        under: Definition | None = None,
        also: tuple[Definition, Embedded] | None = None,
        precision: str | None = None,
    ) -> int:
        """Store all documents with their vectors, or none, in place of those with the same ids; return their number.

        They are durable and can be found when it returns. `under` is the definition that the vectors were made under,
        where it may have changed since; `also` is another one with its vectors, for a rebuild under that definition.
        `precision` is that of the encoder, and is noted.
        Raises `InvalidDocument`, `InvalidVector`, `StaleDefinition`.
        """
        rows = [
            (checked_id(document.id), checked_text(document), encoded_metadata(document)) for document in documents
        ]
        require_distinct(documents)
        with self._store.writing() as transaction:
            self._require_present()
            self._require_current(under)
            validated = validate(vectors, self.dim, len(rows))
            self.definition.similarity.check(validated.vectors)
            replaced, keys = transaction.put(self._row.key, rows, validated)
            if precision is not None:
                transaction.note_precision(self._row.key, precision)
            if also is not None:
                self._put_rebuilt(transaction, keys, *also, precision)
            self._publish(transaction, replaced, validated.repeated(keys), validated.vectors)
        return len(rows)

    def fetch(self, document_id: str) -> Document:
        """Return the document with an id; raises `NotFound`."""
        with self._reading():
            found = self._store.by_ids(self._row.key, [checked_id(document_id)])
        if not found:
            raise self._absent(document_id)
        return found[document_id]

    def delete(self, document_id: str) -> None:
        """Delete the document with an id, durably; raises `NotFound`."""
        with self._store.writing() as transaction:
            self._require_present()
            removed = transaction.delete(self._row.key, checked_id(document_id))
            if not len(removed):
                raise self._absent(document_id)
            self._publish(transaction, removed, np.empty(0, np.int64), np.empty((0, self.dim), np.float32))

    def search(
        self,
        vectors: NDArray[np.floating[Any]],
        k: int,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - the name it has in the HTTP contract
        *,
        grouped: bool = False,
        exact: bool = False,
        under: Definition | None = None,
    ) -> list[list[Hit]]:
        """Return the `k` nearest documents to each query (q, dim), best first, or the nearest spans of documents.

        With `grouped`, a document counts once, by its nearest span; with `exact`, every vector is compared. Fewer
        than `k` come back only where fewer match the filter. Equal scores are ordered by when the documents were
        stored, and by span. `under` is the definition that the queries were made under, where it may have changed
        since.
        Raises `InvalidVector`, `InvalidFilter`, `StaleDefinition`, and `ValueError` for a `k` below one.
        """
        if k < 1:
            raise ValueError(f"k must be 1 or more, not {k}")
        condition = None if filter is None or filter == {} else compile_filter(filter)
        with self._reading() as index:
            self._require_current(under)
            queries = checked_vectors(vectors, self.dim)
            self.definition.similarity.check(queries)
            allowed = self._store.matching(self._row.key, *condition) if condition else None
            found = index.search(queries, k, allowed, distinct=grouped, exact=exact)
            documents = self._store.by_keys(np.unique(found[1]))
        return [
            [_hit(documents[key], score, ordinal) for score, key, ordinal in zip(*row, strict=True)]
            for row in zip(*(part.tolist() for part in found), strict=True)
        ]

    def precisions(self) -> list[str]:
        """Return in which precisions its vectors were made, as far as that was noted."""
        with self._reading():
            return self._store.precisions(self._row.key)

    def documents(self) -> Iterator[Document]:
        """Yield every document, in the order of storing; others may be stored meanwhile."""
        return self._store.documents(self._row.key)

    def relabel(self, definition: Definition, rebuild: Definition | None) -> None:
        """Store another definition of the same vectors, durably, and one of the rebuild's where it is given."""
        with self._store.writing() as transaction:
            self._require_present()
            row = transaction.redefine(self._row, definition.to_json())
            if rebuild is not None:
                transaction.redefine_rebuild(row.key, rebuild.to_json())
            with self._lock.writing():
                transaction.commit()
                self._row, self.definition = row, definition

    def rebuild(self) -> Rebuild | None:
        """Return the rebuild that was begun, in this process or an earlier one, if there is one."""
        with self._reading() as index:
            begun = self._store.rebuild(self._row.key)
            if begun is None:
                return None
            done = max(index.count - self._store.count_unbuilt(self._row.key), 0)
            return Rebuild(Definition.from_json(begun.definition), done)

    def begin_rebuild(self, definition: Definition, dim: int) -> None:
        """Begin to collect vectors of `dim` numbers under a definition, or go on; any other rebuild is dropped."""
        asked = RebuildRow(definition.to_json(), dim)
        with self._store.writing() as transaction:
            self._require_present()
            if transaction.rebuild(self._row.key) != asked:
                transaction.end_rebuild(self._row.key)
                transaction.begin_rebuild(self._row.key, asked)
                transaction.commit()

    def unbuilt(self, after: int = 0, most: int = 64, characters: int = 262_144) -> Sequence[tuple[int, Document]]:
        """Return the next documents that the rebuild has no vectors for, with their keys, which are above `after`.

        There are at most `most` of them, and none after their texts have reached so many characters.
        """
        with self._reading():
            return self._store.unbuilt(self._row.key, after, most, characters)

    def put_rebuilt(
        self, definition: Definition, keys: Sequence[int], vectors: Embedded, precision: str | None = None
    ) -> None:
        """Store vectors of documents under the rebuild's definition; documents that no longer exist are ignored.

        Raises `InvalidVector`, and `StaleDefinition` where there is no rebuild under this definition.
        """
        with self._store.writing() as transaction:
            self._require_present()
            if not self._put_rebuilt(transaction, keys, definition, vectors, precision):
                raise self._abandoned()
            transaction.commit()

    def finish_rebuild(self) -> bool:
        """Replace definition and vectors with the rebuilt ones, as one step for every reader.

        Returns whether it did, which it does not while a document lacks its rebuilt vectors. Raises `StaleDefinition`
        where there is no rebuild.
        """
        with self._store.writing() as transaction:
            self._require_present()
            if transaction.rebuild(self._row.key) is None:
                raise self._abandoned()
            before, row = self._row.snapshot, transaction.exchange(self._row)
            if row is None:
                return False
            index = _filled(self._empty_index(row), transaction.vectors(row.key, row.dim))
            with self._lock.writing():
                transaction.commit()
                self._row, self.definition = row, Definition.from_json(row.definition)
                self._index, self._view = index, index.view()
        self._remove_snapshot(before)
        self._ask_for_build()
        return True

    def abandon_rebuild(self) -> bool:
        """Drop the rebuild and the vectors it has collected; return whether there was one."""
        with self._store.writing() as transaction:
            self._require_present()
            begun = transaction.rebuild(self._row.key) is not None
            transaction.end_rebuild(self._row.key)
            transaction.commit()
        return begun

    def drop(self, transaction: Transaction) -> None:
        """Delete everything and commit; called by `Collections.drop`, which also removes the name."""
        transaction.drop(self._row.key)
        with self._lock.writing():
            transaction.commit()
            self._dropped = True
            self._index = self._view = None
        self._remove_snapshot(self._row.snapshot)

    def _publish(self, transaction: Transaction, removed: Keys, added: Keys, vectors: Vectors) -> None:
        """Change the index, then commit and publish it, as one step for every reader."""
        index, self._index = self._index, None  # which is ahead of the store if the commit fails
        try:
            if index is None:
                index = self._loaded_index()
            index.remove(removed)
            index.add(added, vectors)
        except Exception:
            # Documents can be stored without it; the index must catch up.
            logger.exception("collection %r: index change failed; it will be rebuilt from the store", self.name)
            index = None
        with self._lock.writing():
            transaction.commit()
            self._index, self._view = index, None if index is None else index.view()
        self._ask_for_build()

    @contextmanager
    def _reading(self) -> Iterator[IndexView]:
        """Yield the index as it is now; what this thread reads from the store meanwhile agrees with it."""
        with ExitStack() as until_read:
            while True:
                with self._lock.reading():
                    self._require_present()
                    if (view := self._view) is not None:
                        until_read.enter_context(self._store.snapshot())
                        break
                with self._lock.writing():
                    self._require_present()
                    if self._view is None:
                        self._index = self._loaded_index()
                        self._view = self._index.view()
            yield view

    def _loaded_index(self) -> VectorIndex:
        row, covered = self._row, 0
        index = self._empty_index(row)
        if row.snapshot is not None and isinstance(index, BuiltIndex):
            try:
                covered = index.restore(row.snapshot, self._store.keys(row.key))
            except (DamagedSnapshot, OSError) as error:
                logger.warning(
                    "collection %r: the snapshot of its index cannot be used (%s); the index is built anew, and "
                    "searches are exact until then",
                    *(self.name, error),
                )
                index = self._empty_index(row)
        return _filled(index, self._store.vectors(row.key, row.dim, covered))

    def _empty_index(self, row: CollectionRow) -> VectorIndex:
        similarity = Definition.from_json(row.definition).similarity
        return indexes.build(row.index_kind, row.dim, similarity, row.recall, self._snapshots)

    def _ask_for_build(self) -> None:
        if isinstance(self._index, BuiltIndex) and self._index.due:
            self._builder.ask(self, self.build)

    def _remove_snapshot(self, name: str | None) -> None:
        if name is not None:
            indexes.remove_snapshot(self._snapshots, name)

    def _put_rebuilt(
        self,
        transaction: Transaction,
        keys: Sequence[int] | Keys,
        definition: Definition,
        vectors: Embedded,
        precision: str | None,
    ) -> bool:
        """Store rebuilt vectors; return whether there is a rebuild under this definition."""
        begun = transaction.rebuild(self._row.key)
        if begun is None or Definition.from_json(begun.definition) != definition:
            return False
        validated = validate(vectors, begun.dim, len(keys))
        definition.similarity.check(validated.vectors)
        transaction.put_rebuilt(keys, validated)
        if precision is not None:
            transaction.note_precision(self._row.key, precision, rebuilt=True)
        return True

    def _require_present(self) -> None:
        if self._dropped:
            raise NotFound(f"collection {self.name!r} was dropped.")

    def _require_current(self, definition: Definition | None) -> None:
        if definition is not None and definition != self.definition:
            raise StaleDefinition(f"collection {self.name!r} was rebuilt under another definition meanwhile.")

    def _abandoned(self) -> StaleDefinition:
        return StaleDefinition(f"the rebuild of collection {self.name!r} was abandoned.")

    def _absent(self, document_id: str) -> NotFound:
        return NotFound(f"collection {self.name!r} has no document {document_id!r}.")


class ReadWriteLock:
    """Many readers or one writer; a waiting writer goes before readers that come after it. Not reentrant.

    Without that preference, a steady stream of searches would keep an upsert waiting for ever.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._readers = 0
        self._writing = False
        self._writers_waiting = 0

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Hold the lock together with other readers."""
        with self._changed:
            self._changed.wait_for(lambda: not self._writing and not self._writers_waiting)
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the lock alone."""
        with self._changed:
            self._writers_waiting += 1
            try:
                self._changed.wait_for(lambda: not self._writing and not self._readers)
                self._writing = True
            finally:
                self._writers_waiting -= 1
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._writing = False
                self._changed.notify_all()


def _filled(index: VectorIndex, blocks: Iterable[tuple[Keys, Vectors]]) -> VectorIndex:
    for keys, vectors in blocks:
        index.add(keys, vectors)
    return index


def _canonical(document: Document) -> str:
    """Return metadata as canonical JSON, in which 1, 1.0 and true differ and the order of keys does not matter."""
    return json.dumps(json.loads(encoded_metadata(document)), sort_keys=True)


def _hit(document: Document, score: float, ordinal: int) -> Hit:
    span = document.spans[ordinal] if document.spans is not None else None
    return Hit(document.id, score, document.text, document.metadata, span)
