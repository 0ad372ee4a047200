"""What a collection says of itself, and its documents one by one, by ids, in pages and as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeGuard

import numpy as np

from service.arrays import Vectors
from service.collections.milvus.client import MOST_ROWS
from service.collections.milvus.contents import Contents
from service.collections.milvus.generation import KINDS
from service.collections.milvus.moment import MOST_READ, Kept, Moment, blocks_of, stored
from service.collections.milvus.rows import owner_of
from service.collections.milvus.schema import BYTES, EVERY, HEAD, OWNER, SEQUENCE
from service.collections.paging import cursor_after, key_of
from service.collections.protocols import Page
from service.collections.provenance import Definition
from service.errors import Place, TooLarge
from service.index import IndexState
from service.store.document import Document, Stored, canonical_metadata, checked_id, checked_ids, checked_text
from service.store.filters import AnyFilter, compiled

_MOST_IN_ORDER: Final = 4_096


class Reading(Contents):
    """The part of a collection that reads documents."""

    def count(self) -> int:
        """Return the number of documents."""
        return self._reading(lambda moment: moment.count(HEAD))

    def chunks(self) -> int:
        """Return the number of vectors."""
        return self._reading(lambda moment: moment.count(EVERY))

    def memory_bytes(self) -> int:
        """Return 0, since the index is in the memory of Milvus."""
        self._look()
        return 0

    def stored_bytes(self) -> int:
        """Return the bytes that texts, metadata and vectors take, without Milvus's own.

        Of very many documents it is an estimate from some, which are a sample of all: their keys are digests.
        """

        def read(moment: Moment) -> int:
            rows = moment.query(HEAD, [BYTES])
            total = sum(int(row[BYTES]) for row in rows)
            return total if len(rows) < MOST_ROWS else total * moment.count(HEAD) // len(rows)

        return self._reading(read)

    def precisions(self) -> list[str]:
        """Return in which precisions its vectors were made, as far as that was noted."""
        return [*self._look().precisions]

    def index_state(self) -> IndexState:
        """Return how Milvus searches now: rows that are not in an index yet are the tail."""
        generation = self._look()
        uses = KINDS[generation.index_kind].uses
        rows = self._client.index_rows(generation.physical)
        return IndexState(uses, tail=max(rows.total - rows.indexed, 0))

    def fetch(self, document_id: str) -> Document:
        """Return the document with an id; raises `NotFound`."""
        owner = owner_of(checked_id(document_id, Place("document_id")))
        found = self._reading(lambda moment: moment.read([owner])).get(owner)
        if found is None:
            raise self._absent(document_id)
        return found.document

    def fetch_many(self, ids: Sequence[str], *, vectors: bool = False) -> tuple[list[Stored], list[str]]:
        """Return the documents with these ids, in their order and each once, and the ids that no document has."""
        owners = {id_: owner_of(id_) for id_ in checked_ids(ids)}

        def read(moment: Moment) -> dict[str, Kept]:
            sizes = list(moment.among([*owners.values()], HEAD, [OWNER, BYTES]))
            if sum(int(row[BYTES]) for row in sizes) > MOST_READ and len(sizes) > 1:
                raise TooLarge(
                    f"these {len(sizes)} documents have more than {MOST_READ} bytes together, which one answer "
                    "takes; ask for fewer ids at once.",
                    where=Place("ids"),
                    limit=MOST_READ,
                )
            return moment.read([row[OWNER] for row in sizes], vectors=vectors)

        found = self._reading(read) if owners else {}
        return (
            [stored(found[owner]) for owner in owners.values() if owner in found],
            [id_ for id_, owner in owners.items() if owner not in found],
        )

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
        after = -1 if cursor is None else key_of(cursor, self.uid, self.name)

        def read(moment: Moment) -> Page:
            rows = moment.in_order(moment.matching(condition), after, min(limit, _MOST_IN_ORDER) + 1)
            turn = rows[: min(limit, _MOST_IN_ORDER)]
            block = next(blocks_of(turn), [])
            found = moment.read(block, vectors=vectors)
            last = turn[len(block) - 1] if block else None
            # One that was replaced between the two reads comes at the end, and is not this page's any more.
            own = [found[row[OWNER]] for row in turn[: len(block)] if _still(found.get(row[OWNER]), row[SEQUENCE])]
            more = last is not None and last is not rows[-1]
            return Page(
                [stored(kept) for kept in own],
                cursor_after(self.uid, int(last[SEQUENCE])) if more and last is not None else None,
            )

        return self._reading(read)

    def count_matching(self, filter: AnyFilter | None) -> int:  # noqa: A002 - as in `search`
        """Return the number of documents that match a filter, None for all; raises `InvalidFilter`."""
        condition = compiled(filter)
        return self._reading(lambda moment: moment.count(moment.matching(condition)))

    def documents(self) -> Iterator[Document]:
        """Yield every document, in the order of storing; others may be stored meanwhile."""
        for kept, _ in self._every(vectors=False):
            yield kept.document

    def exported(self) -> Iterator[tuple[Definition, Document, Vectors]]:
        """Yield every document with its vectors (spans or 1, dim) and the definition, in the order of storing.

        One that is replaced or deleted before its turn is left out, since Milvus keeps no earlier state.
        """
        self._look()
        return self._exported()

    def _exported(self) -> Iterator[tuple[Definition, Document, Vectors]]:
        for kept, definition in self._every(vectors=True):
            assert kept.vectors is not None
            yield definition, kept.document, kept.vectors

    def unchanged(self, documents: Sequence[Document], vectors: Mapping[str, Vectors] | None = None) -> set[str]:
        """Return the ids of the documents that are stored with equal text, metadata and, where given, spans."""
        asked = {checked_id(document.id): document for document in documents}
        owners = [owner_of(id_) for id_ in asked]
        found = self._reading(lambda moment: moment.read(owners, vectors=bool(vectors))) if owners else {}
        same = set()
        for id_, document in asked.items():
            kept = found.get(owner_of(id_))
            if kept is None or kept.document.text != checked_text(document):
                continue
            if document.spans not in (None, kept.document.spans) or canonical_metadata(
                kept.document
            ) != canonical_metadata(document):
                continue
            if vectors and id_ in vectors and not _equal(kept.vectors, vectors[id_]):
                continue
            same.add(id_)
        return same

    def _every(self, *, vectors: bool) -> Iterator[tuple[Kept, Definition]]:
        """Yield all documents that there are now, in the order of storing, but for those that change before."""
        of, rows = self._reading(lambda moment: (moment.generation, moment.every_in_order()))
        sequences = {row[OWNER]: row[SEQUENCE] for row in rows}
        for block in blocks_of(rows):

            def read(moment: Moment, block: list[str] = block) -> tuple[Definition, dict[str, Kept]]:
                return moment.generation.definition, moment.read(block, vectors=vectors)

            definition, found = self._reading(read)
            if vectors:
                self._require_current(of.definition, self._generation)
            for owner in block:
                kept = found.get(owner)
                if _still(kept, sequences[owner]):
                    yield kept, definition


def _still(kept: Kept | None, sequence: int) -> TypeGuard[Kept]:
    """Return whether a document is there as it was stored under a number."""
    return kept is not None and kept.sequence == sequence


def _equal(kept: Vectors | None, given: Vectors) -> bool:
    return kept is not None and np.array_equal(kept.ravel(), given.ravel())
