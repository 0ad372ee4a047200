"""One collection: its documents in the store, and the index over their vectors."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.collections.document import Document, Hit, checked_id, checked_text, encoded_metadata, require_distinct
from service.collections.errors import InvalidVector, NotFound
from service.collections.filters import compile_filter
from service.collections.index import Keys, VectorIndex, Vectors, build_index
from service.collections.lock import ReadWriteLock
from service.collections.store import CollectionRow, Store, Transaction

logger = logging.getLogger(__name__)


class Collection:
    """Documents that can be searched by vector; every method is thread-safe.

    A search sees all of an upsert or none of it: commit and index change happen under a write lock, the index
    search and the reading of the rows under the read lock. Every method raises `NotFound` once the collection
    is dropped, and `StoreUnavailable` when the store cannot be read or written.
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
    def definition(self) -> dict[str, Any]:
        """What the collection was created with."""
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
            return len(index)

    def memory_bytes(self) -> int:
        """Return the bytes of memory that the index holds."""
        with self._reading() as index:
            return index.memory_bytes

    def unchanged(self, documents: Sequence[Document]) -> set[str]:
        """Return the ids of the documents that are stored already with equal text and metadata.

        Their vectors need not be computed again. Raises `InvalidDocument`.
        """
        asked = {checked_id(document.id): document for document in documents}
        with self._reading():
            stored = self._store.by_ids(self._row.key, list(asked))
        return {
            document_id
            for document_id, known in stored.items()
            if known.text == checked_text(asked[document_id]) and _canonical(known) == _canonical(asked[document_id])
        }

    def upsert(self, documents: Sequence[Document], vectors: NDArray[np.floating[Any]]) -> int:
        """Store documents with their vectors (n, dim), in place of those with the same ids: all, or none.

        Returns their number, once they are durable and can be found.
        Raises `InvalidDocument`, `InvalidVector`.
        """
        rows = [
            (checked_id(document.id), checked_text(document), encoded_metadata(document)) for document in documents
        ]
        require_distinct(documents)
        accepted = self._accepted(vectors)
        if len(accepted) != len(rows):
            raise InvalidVector(f"{len(rows)} documents came with {len(accepted)} vectors; send one for each.")
        if rows:
            with self._store.writing() as transaction:
                self._require_present()
                replaced, keys = transaction.put(self._row.key, rows, accepted)
                self._publish(transaction, replaced, keys, accepted)
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
    ) -> list[list[Hit]]:
        """Return for each of `vectors` (q, dim) the `k` nearest documents that match the filter, best first.

        Exact: fewer than `k` come back only where fewer match. Documents with equal scores come in the order
        in which they were stored.
        Raises `InvalidVector`, `InvalidFilter`, and `ValueError` for a `k` below one.
        """
        if k < 1:
            raise ValueError(f"k must be 1 or more, not {k}")
        queries = self._accepted(vectors)
        condition = None if filter is None or filter == {} else compile_filter(filter)
        with self._reading() as index:
            allowed = self._store.matching(self._row.key, *condition) if condition else None
            scores, keys = index.search(queries, k, allowed)
            documents = self._store.by_keys(np.unique(keys))
        return [
            [_hit(documents[key], score) for key, score in zip(row_keys, row_scores, strict=True)]
            for row_keys, row_scores in zip(keys.tolist(), scores.tolist(), strict=True)
        ]

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
        index = build_index(self.index_kind, self.dim)
        for keys, vectors in self._store.vectors(self._row.key, self.dim):
            index.add(keys, vectors)
        return index

    def _require_present(self) -> None:
        if self._dropped:
            raise NotFound(f"collection {self.name!r} was dropped.")

    def _absent(self, document_id: str) -> NotFound:
        return NotFound(f"collection {self.name!r} has no document {document_id!r}.")

    def _accepted(self, vectors: NDArray[np.floating[Any]]) -> Vectors:
        """Return vectors as float32 (n, dim) that a cosine is defined for; raises `InvalidVector`."""
        if not isinstance(vectors, np.ndarray) or not np.issubdtype(vectors.dtype, np.floating):
            kind = vectors.dtype if isinstance(vectors, np.ndarray) else type(vectors).__name__
            raise InvalidVector(f"vectors must be an array of floating-point numbers, not of {kind}.")
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            raise InvalidVector(
                f"vectors of shape {vectors.shape} do not fit collection {self.name!r}, which takes (n, {self.dim})."
            )
        with np.errstate(over="ignore"):  # beyond float32 is inf, which is refused below
            accepted = vectors.astype(np.float32)
        for position in np.flatnonzero(~np.isfinite(accepted).all(axis=1)):
            raise InvalidVector(f"vector {position} holds NaN, infinity or a number beyond float32.")
        for position in np.flatnonzero(~accepted.any(axis=1)):
            raise InvalidVector(f"vector {position} is all zeros, which has no direction to compare.")
        return accepted


def _canonical(document: Document) -> str:
    """Return the metadata in one spelling: 1, 1.0 and true differ, the order of keys does not matter."""
    return json.dumps(json.loads(encoded_metadata(document)), sort_keys=True)


def _hit(document: Document, score: float) -> Hit:
    return Hit(document.id, score, document.text, document.metadata)
