"""Changing a collection: documents stored and deleted, their metadata changed, and its definition renamed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from service.arrays import Keys
from service.collections.embedded.rebuilding import Rebuilding
from service.collections.provenance import Definition
from service.collections.selection import Changed, Selection
from service.errors import Place
from service.store.document import (
    Document,
    Embedded,
    ValidatedVectors,
    checked_id,
    checked_ids,
    checked_text,
    encoded_metadata,
    require_distinct,
    validate,
)
from service.store.filters import as_filter
from service.store.transaction import Change, Transaction

_AT_ONCE: Final = 1000
"""Documents whose metadata are changed in one step of a transaction."""


class Changing(Rebuilding):
    """The part of a collection that changes documents."""

    def upsert(
        self,
        documents: Sequence[Document],
        vectors: Embedded,
        *,
        under: Definition | None = None,
        also: tuple[Definition, Embedded] | None = None,
        precision: str | None = None,
    ) -> int:
        """Store all documents with their vectors, or none, in place of those with the same ids."""
        rows = encoded(documents)
        with self._store.writing() as transaction:
            self._require_present()
            self._require_current(under, self.definition)
            own = validated(self.definition, vectors, self.dim, len(rows))
            replaced, keys = transaction.put(self._row.key, rows, own)
            if precision is not None:
                transaction.note_precision(self._row.key, precision)
            if also is not None:
                self._put_rebuilt(transaction, keys, *also, precision)
            transaction.publish(self, Change(replaced, own.repeated(keys), own.vectors))
        return len(rows)

    def delete(self, document_id: str) -> None:
        """Delete the document with an id, durably; raises `NotFound`."""
        with self._store.writing() as transaction:
            self._require_present()
            removed = transaction.delete(self._row.key, checked_id(document_id, Place("document_id")))
            if not len(removed):
                raise self._absent(document_id)
            transaction.publish(self, self._removal(removed))

    def delete_many(self, selection: Selection) -> Changed:
        """Delete documents, all of them or none, durably; raises `InvalidDocument` and `InvalidFilter`."""
        with self._store.writing() as transaction:
            self._require_present()
            keys, missing = self._selected(transaction, selection)
            if len(keys):
                transaction.delete_keys(self._row.key, keys)
                transaction.publish(self, self._removal(keys))
        return Changed(len(keys), missing)

    def update_metadata(self, selection: Selection, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Changed:
        """Replace the metadata of documents by what `change` makes of it, of all or of none, durably.

        Texts, vectors and keys stay, so that neither the index nor a rebuild is touched.
        Raises `InvalidDocument` and `InvalidFilter`.
        """
        with self._store.writing() as transaction:
            self._require_present()
            keys, missing = self._selected(transaction, selection)
            for start in range(0, len(keys), _AT_ONCE):
                before = transaction.metadata(keys[start : start + _AT_ONCE])
                after = (
                    (key, encoded_metadata(Document(document_id, "", change(metadata))))
                    for key, document_id, _, metadata in before
                )
                transaction.set_metadata(
                    self._row.key,
                    [new for new, (_, _, stored, _) in zip(after, before, strict=True) if new[1] != stored],
                )
            transaction.commit()
        return Changed(len(keys), missing)

    def relabel(self, definition: Definition, rebuild: Definition | None) -> None:
        """Store another definition of the same vectors, durably, and one of the rebuild's where it is given."""
        with self._store.writing() as transaction:
            self._require_present()
            row = transaction.redefine(self._row, definition.to_json())
            if rebuild is not None:
                transaction.redefine_rebuild(row.key, rebuild.to_json())
            transaction.commit()
            self._row, self.definition = row, definition
            self._show(definition=definition)

    def _removal(self, keys: Keys) -> Change:
        return Change(keys, np.empty(0, np.int64), np.empty((0, self.dim), np.float32))

    def _selected(self, transaction: Transaction, selection: Selection) -> tuple[Keys, list[str]]:
        """Return the keys of the selected documents, ascending, and the ids that no document has."""
        if selection.ids is not None:
            asked = checked_ids(selection.ids)
            found = transaction.keys_of(self._row.key, asked)
            return np.array(sorted(found.values()), np.int64), [id_ for id_ in asked if id_ not in found]
        if selection.filter is not None:
            return self._store.matching(self._row.key, as_filter(selection.filter)), []
        return transaction.keys(self._row.key), []


def encoded(documents: Sequence[Document]) -> list[tuple[str, str, str]]:
    """Return id, text and metadata of documents as they are stored; raises `InvalidDocument`."""
    rows = [(checked_id(document.id), checked_text(document), encoded_metadata(document)) for document in documents]
    require_distinct(documents)
    return rows


def validated(definition: Definition, vectors: Embedded, dim: int, documents: int) -> ValidatedVectors:
    """Check the vectors of so many documents under a definition; raises `InvalidVector`."""
    found = validate(vectors, dim, documents)
    definition.similarity.check(found.vectors)
    return found
