"""One collection: its documents in the store, and the index over their vectors."""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.collections.lock import ReadWriteLock
from service.errors import NotFound, StaleDefinition
from service.index.flat import Keys, VectorIndex, Vectors, build_index, checked
from service.store.document import Document, Hit, checked_id, checked_text, encoded_metadata, require_distinct
from service.store.filters import compile_filter
from service.store.store import Store
from service.store.transaction import CollectionRow, RebuildRow, Transaction
from service.store.vectors import Embedded, accept

logger = logging.getLogger(__name__)

Definition = dict[str, Any]
"""What vectors are made under: any JSON object."""


@dataclass(frozen=True, slots=True)
class Rebuild:
    """The definition that a collection is to have, and how many of its documents have their vector under it."""

    definition: Definition
    done: int


class Collection:
    """Documents that can be searched by vector; every method is thread-safe.

    A document has one vector, or one for each of its spans, as those say who store it.

    A search sees all of an upsert or none of it: commit and index change happen under a write lock, the index
    search and the reading of the rows under the read lock. Every method raises `NotFound` once the collection
    is dropped, and `StoreUnavailable` when the store cannot be read or written.

    Its definition, and with it every vector, can be changed by a rebuild: the new vectors are collected beside those
    that are searched, over any number of runs of the process, and take their place all at once.
    """

    def __init__(self, store: Store, row: CollectionRow) -> None:
        self._store = store
        self._row = row
        self._lock = ReadWriteLock()
        self._dropped = False
        self._index: VectorIndex | None = self._loaded_index()  # None: to be loaded by the next reader

    @property
    def name(self) -> str:
        """The collection's name."""
        return self._row.name

    @property
    def definition(self) -> Definition:
        """What its vectors were made under: what the collection was created with, or last rebuilt under."""
        return self._row.definition

    @property
    def dim(self) -> int:
        """Numbers in a vector."""
        return self._row.dim

    @property
    def index_kind(self) -> str:
        """The kind of index over the vectors."""
        return self._row.index_kind

    @property
    def created(self) -> datetime:
        """When the collection was created, in UTC."""
        return self._row.created

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

    def unchanged(self, documents: Sequence[Document]) -> set[str]:
        """Return the ids of the documents that are stored already with equal text, metadata and, where given, spans.

        Their vectors need not be computed again. Raises `InvalidDocument`.
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
    ) -> int:
        """Store documents with their vectors, in place of those with the same ids: all, or none.

        `under` is the definition that the vectors were made under, where it may have changed since; `also` is
        another, with vectors under it, which are kept where a rebuild under that definition is under way.
        Returns their number, once they are durable and can be found.
        Raises `InvalidDocument`, `InvalidVector`, `StaleDefinition`.
        """
        rows = [
            (checked_id(document.id), checked_text(document), encoded_metadata(document)) for document in documents
        ]
        require_distinct(documents)
        with self._store.writing() as transaction:
            self._require_present()
            self._require_current(under)
            accepted = accept(vectors, self.dim, len(rows))
            replaced, keys = transaction.put(self._row.key, rows, accepted)
            if also is not None:
                self._put_rebuilt(transaction, keys, *also)
            self._publish(transaction, replaced, accepted.repeated(keys), accepted.vectors)
        return len(rows)

    def fetch(self, document_id: str) -> Document:
        """Return the document of this id; raises `NotFound`."""
        with self._reading():
            found = self._store.by_ids(self._row.key, [checked_id(document_id)])
        if not found:
            raise self._absent(document_id)
        return found[document_id]

    def delete(self, document_id: str) -> None:
        """Delete the document of this id, durably; raises `NotFound`."""
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
        under: Definition | None = None,
    ) -> list[list[Hit]]:
        """Return for each of `vectors` (q, dim) the `k` nearest documents that match the filter, best first.

        Where documents are cut into spans, the `k` nearest spans, of which one document may have many; `grouped`, the
        `k` nearest documents, each by its nearest span.
        Exact: fewer than `k` come back only where fewer match. Documents with equal scores come in the order
        in which they were stored, the spans of one in the order that they have there. `under` is the definition that
        the vectors were made under, where it may have changed since.
        Raises `InvalidVector`, `InvalidFilter`, `StaleDefinition`, and `ValueError` for a `k` below one.
        """
        if k < 1:
            raise ValueError(f"k must be 1 or more, not {k}")
        condition = None if filter is None or filter == {} else compile_filter(filter)
        with self._reading() as index:
            self._require_current(under)
            queries = checked(vectors, self.dim)
            allowed = self._store.matching(self._row.key, *condition) if condition else None
            found = index.search(queries, k, allowed, distinct=grouped)
            documents = self._store.by_keys(np.unique(found[1]))
        return [
            [_hit(documents[key], score, ordinal) for score, key, ordinal in zip(*row, strict=True)]
            for row in zip(*(part.tolist() for part in found), strict=True)
        ]

    def rebuild(self) -> Rebuild | None:
        """Return the rebuild that was begun, in this process or an earlier one, if any."""
        with self._reading() as index:
            begun = self._store.rebuild(self._row.key)
            if begun is None:
                return None
            return Rebuild(begun.definition, max(index.count - self._store.count_unbuilt(self._row.key), 0))

    def begin_rebuild(self, definition: Definition, dim: int) -> None:
        """Begin to collect vectors of `dim` numbers under a definition, or go on; any other rebuild is dropped."""
        asked = RebuildRow(json.loads(json.dumps(definition)), dim)
        with self._store.writing() as transaction:
            self._require_present()
            if transaction.rebuild(self._row.key) != asked:
                transaction.end_rebuild(self._row.key)
                transaction.begin_rebuild(self._row.key, asked)
                transaction.commit()

    def unbuilt(self, after: int = 0, most: int = 64, characters: int = 262_144) -> Sequence[tuple[int, Document]]:
        """Return the next documents that the rebuild has no vector for, with their keys, which are above `after`.

        At most `most` of them, and none after their texts have come to so many characters.
        """
        with self._reading():
            return self._store.unbuilt(self._row.key, after, most, characters)

    def put_rebuilt(self, definition: Definition, keys: Sequence[int], vectors: Embedded) -> None:
        """Store the vectors of documents under the rebuild's definition; documents that are gone are passed over.

        Raises `InvalidVector`, and `StaleDefinition` where no rebuild under this definition is under way.
        """
        with self._store.writing() as transaction:
            self._require_present()
            if not self._put_rebuilt(transaction, keys, definition, vectors):
                raise self._abandoned()
            transaction.commit()

    def finish_rebuild(self) -> bool:
        """Put the rebuild's definition and vectors in place of the present ones, as one step for every reader.

        Tells whether it did: not while a document lacks its vector. Raises `StaleDefinition` without a rebuild.
        """
        with self._store.writing() as transaction:
            self._require_present()
            if transaction.rebuild(self._row.key) is None:
                raise self._abandoned()
            row = transaction.exchange(self._row)
            if row is None:
                return False
            index = _filled(row, transaction.vectors(row.key, row.dim))
            with self._lock.writing():
                transaction.commit()
                self._row, self._index = row, index
        return True

    def abandon_rebuild(self) -> bool:
        """Drop the rebuild and what it has collected; tells whether there was one."""
        with self._store.writing() as transaction:
            self._require_present()
            begun = transaction.rebuild(self._row.key) is not None
            transaction.end_rebuild(self._row.key)
            transaction.commit()
        return begun

    def drop(self, transaction: Transaction) -> None:
        """Delete everything and commit; for `Collections.drop`, which also forgets the name."""
        transaction.drop(self._row.key)
        with self._lock.writing():
            transaction.commit()
            self._dropped = True
            self._index = None

    def _publish(self, transaction: Transaction, removed: Keys, added: Keys, vectors: Vectors) -> None:
        """Commit and bring the index up to date, as one step in the eyes of every reader."""
        with self._lock.writing():
            transaction.commit()
            if self._index is None:
                return
            try:
                self._index.remove(removed)
                self._index.add(added, vectors)
            except Exception:
                # The change is durable all the same, so the call has succeeded; the index must catch up.
                logger.exception("collection %r: index change failed; it will be rebuilt from the store", self.name)
                self._index = None

    @contextmanager
    def _reading(self) -> Iterator[VectorIndex]:
        """Hold the read lock, with an index that agrees with the store."""
        while True:
            with self._lock.reading():
                self._require_present()
                if self._index is not None:
                    yield self._index
                    return
            with self._lock.writing():
                self._require_present()
                if self._index is None:
                    self._index = self._loaded_index()

    def _loaded_index(self) -> VectorIndex:
        return _filled(self._row, self._store.vectors(self._row.key, self.dim))

    def _put_rebuilt(
        self,
        transaction: Transaction,
        keys: Sequence[int] | Keys,
        definition: Definition,
        vectors: Embedded,
    ) -> bool:
        begun = transaction.rebuild(self._row.key)
        if begun is None or begun.definition != definition:
            return False
        transaction.put_rebuilt(keys, accept(vectors, begun.dim, len(keys)))
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


def _filled(row: CollectionRow, blocks: Iterable[tuple[Keys, Vectors]]) -> VectorIndex:
    index = build_index(row.index_kind, row.dim)
    for keys, vectors in blocks:
        index.add(keys, vectors)
    return index


def _canonical(document: Document) -> str:
    """Return the metadata in one spelling: 1, 1.0 and true differ, the order of keys does not matter."""
    return json.dumps(json.loads(encoded_metadata(document)), sort_keys=True)


def _hit(document: Document, score: float, ordinal: int) -> Hit:
    span = document.spans[ordinal] if document.spans is not None else None
    return Hit(document.id, score, document.text, document.metadata, span)
