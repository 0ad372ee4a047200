"""What a collection says of itself, and its documents one by one, by ids, in pages and as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from service.arrays import Vectors
from service.collections.embedded.contents import Contents
from service.collections.paging import cursor_after, key_of
from service.collections.protocols import Page
from service.collections.provenance import Definition
from service.errors import Place, TooLarge
from service.index import IndexState
from service.store.document import Document, Stored, canonical_metadata, checked_id, checked_ids, checked_text
from service.store.filters import AnyFilter, compiled

_MOST_BYTES: Final = 1 << 25
"""Texts, metadata and vectors that are read at once, in bytes."""


class Reading(Contents):
    """The part of a collection that reads documents."""

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
            return replace(index.state, building=self._built(), saved=self._saved())

    def unchanged(self, documents: Sequence[Document], vectors: Mapping[str, Vectors] | None = None) -> set[str]:
        """Return the ids of the documents that are stored with equal text, metadata and, where given, spans."""
        asked = {checked_id(document.id): document for document in documents}
        with self._store.snapshot(self._row.key):
            self._require_present()
            stored = self._store.by_ids(self._row.key, list(asked))
            for document_id, kept in self._store.vectors_by_ids(self._row.key, list(vectors or ())).items():
                if vectors and not np.array_equal(kept, vectors[document_id].ravel()):
                    stored.pop(document_id, None)
        return {
            document_id
            for document_id, known in stored.items()
            if known.text == checked_text(asked[document_id])
            and asked[document_id].spans in (None, known.spans)
            and canonical_metadata(known) == canonical_metadata(asked[document_id])
        }

    def fetch(self, document_id: str) -> Document:
        """Return the document with an id; raises `NotFound`."""
        with self._reading():
            found = self._store.by_ids(self._row.key, [checked_id(document_id, Place("document_id"))])
        if not found:
            raise self._absent(document_id)
        return found[document_id]

    def page(
        self,
        limit: int,
        cursor: str | None = None,
        filter: AnyFilter | None = None,  # noqa: A002 - as in `search`
        *,
        vectors: bool = False,
    ) -> Page:
        """Return the next documents in the order of storing, of those that match the filter, from a cursor on."""
        if limit < 1:
            raise ValueError(f"limit must be 1 or more, not {limit}")
        condition = compiled(filter)
        after = 0 if cursor is None else key_of(cursor, self._row.key, self.name)
        with self._reading() as view:
            matching = self._matching(condition, view)
            if matching is None:
                keys = self._store.keys(self._row.key, after, limit + 1)
            else:
                keys = matching[np.searchsorted(matching, after, "right") :]
            found = self._store.read(keys[:limit], _MOST_BYTES, vectors=vectors)
        more = found and found[-1][0] < keys[-1]
        documents = [stored for _, stored in found]
        return Page(documents, cursor_after(self._row.key, found[-1][0]) if more else None)

    def count_matching(self, filter: AnyFilter | None) -> int:  # noqa: A002 - as in `search`
        """Return the number of documents that match a filter, None for all; raises `InvalidFilter`."""
        condition = compiled(filter)
        with self._reading() as view:
            keys = self._matching(condition, view)
            return view.count if keys is None else len(keys)

    def fetch_many(self, ids: Sequence[str], *, vectors: bool = False) -> tuple[list[Stored], list[str]]:
        """Return the documents with these ids, in their order and each once, and the ids that no document has."""
        asked = checked_ids(ids)
        with self._reading():
            keys = self._store.keys_of(self._row.key, asked)
            found = self._store.read(np.array(sorted(keys.values()), np.int64), _MOST_BYTES, vectors=vectors)
        if len(found) < len(keys):
            raise TooLarge(
                f"these {len(keys)} documents have more than {_MOST_BYTES} bytes together, which one answer takes; "
                "ask for fewer ids at once.",
                where=Place("ids"),
                limit=_MOST_BYTES,
            )
        by_id = {stored.document.id: stored for _, stored in found}
        return [by_id[id_] for id_ in asked if id_ in by_id], [id_ for id_ in asked if id_ not in by_id]

    def stored_bytes(self) -> int:
        """Return the bytes that texts, metadata and vectors take in the store."""
        with self._reading():
            return self._store.stored_bytes(self._row.key)

    def precisions(self) -> list[str]:
        """Return in which precisions its vectors were made, as far as that was noted."""
        with self._reading():
            return self._store.precisions(self._row.key)

    def documents(self) -> Iterator[Document]:
        """Yield every document, in the order of storing; others may be stored meanwhile."""
        return self._store.documents(self._row.key)

    def exported(self) -> Iterator[tuple[Definition, Document, Vectors]]:
        """Yield every document with its vectors (spans or 1, dim) and the definition, in the order of storing."""
        self._require_present()
        definition: Definition | None = None
        for stored, document, numbers in self._store.exported(self._row.key):
            definition = definition or Definition.from_json(stored)
            yield definition, document, numbers.reshape(1 if document.spans is None else len(document.spans), -1)
