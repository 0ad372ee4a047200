"""Changing a collection: documents stored and deleted, their metadata changed, and its definition renamed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

from service.collections.milvus.client import Gone
from service.collections.milvus.generation import Generation, Part, Target
from service.collections.milvus.moment import Kept, Moment, blocks_of
from service.collections.milvus.rows import encoded, owner_of, validated
from service.collections.milvus.schema import BYTES, HEAD, OWNER
from service.collections.milvus.searching import Searching
from service.collections.milvus.writing import put, remove, tidy
from service.collections.provenance import Definition
from service.collections.selection import Changed, Selection
from service.errors import Place, StoreUnavailable
from service.store.document import (
    Document,
    Embedded,
    ValidatedVectors,
    checked_id,
    checked_ids,
    require_distinct,
)
from service.store.filters import as_filter

T = TypeVar("T")
PATIENCE: Final = 5.0
"""Seconds that a change waits for a rebuild that is about to take the collection's place."""
POLLED: Final = 0.1


class Changing(Searching):
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
        """Store all documents with their vectors, or none, in place of those with the same ids.

        They are stored in one moment where they fit in one call of Milvus, which takes some ten thousand vectors; in
        several otherwise, each document whole.
        """
        of = [encoded(document) for document in documents]
        require_distinct(documents)

        def store(moment: Moment) -> int:
            generation = moment.generation
            self._require_current(under, generation)
            own = validated(generation.definition, vectors, generation.dim, len(of))
            target = generation.target
            rebuilt: ValidatedVectors | None = None
            if also is not None and target is not None and target.definition == also[0]:
                rebuilt = validated(target.definition, also[1], target.dim, len(of))
            sequences = self._clock.next(len(of))
            rows = [
                (each, each.rows(each_own, spans, sequence, sequence))
                for each, (each_own, spans), sequence in zip(of, own, sequences, strict=True)
            ]
            others = [
                (each, each.rows(each_own, spans, sequence, sequence))
                for each, (each_own, spans), sequence in zip(of, rebuilt or (), sequences, strict=rebuilt is not None)
            ]
            if precision is not None:
                self._note(generation, precision)
            put(self._client, generation.physical, rows)
            owners = [each.owner for each in of]
            tidy(self._later(moment), owners)
            if target is not None:
                beside = self._beside(moment, target)
                if rebuilt is not None:
                    put(self._client, target.physical, others)
                    if precision is not None:
                        self._note(beside.generation, precision)
                    tidy(self._later(beside), owners)
                else:
                    remove(beside, owners)
            return len(of)

        return self._changing(store)

    def delete(self, document_id: str) -> None:
        """Delete the document with an id, durably; raises `NotFound`."""
        owner = owner_of(checked_id(document_id, Place("document_id")))

        def change(moment: Moment) -> None:
            if not moment.heads([owner], [OWNER]):
                raise self._absent(document_id)
            self._remove(moment, [owner])

        self._changing(change)

    def delete_many(self, selection: Selection) -> Changed:
        """Delete documents, all of them or none, durably; raises `InvalidDocument` and `InvalidFilter`."""

        def change(moment: Moment) -> Changed:
            rows, missing = self._selected(moment, selection)
            self._remove(moment, [row[OWNER] for row in rows])
            return Changed(len(rows), missing)

        return self._changing(change)

    def update_metadata(self, selection: Selection, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Changed:
        """Replace the metadata of documents by what `change` makes of it, durably; order and vectors stay.

        All are checked before any is stored, and those that fit in one call are stored in one moment. Raises
        `InvalidDocument` and `InvalidFilter`.
        """

        def update(moment: Moment) -> Changed:
            rows, missing = self._selected(moment, selection)
            blocks = list(blocks_of(rows))
            if len(blocks) > 1:  # what fails must do so before anything is stored
                for block in blocks:
                    for kept in moment.read(block).values():
                        encoded(_with_metadata(kept, change(kept.document.metadata)))
            for block in blocks:
                self._update(moment, block, change)
            return Changed(len(rows), missing)

        return self._changing(update)

    def relabel(self, definition: Definition, rebuild: Definition | None) -> None:
        """Store another definition of the same vectors, durably, and one of the rebuild's where it is given."""

        def change(moment: Moment) -> None:
            target = moment.generation.target
            if target is not None and rebuild is not None:
                target = replace(target, definition=rebuild)
            self._set(replace(moment.generation, definition=definition, target=target), "definition", "target")

        self._changing(change)

    def _changing(self, work: Callable[[Moment], T]) -> T:
        """Do something with the collection as it is now, once no rebuild is about to take its place."""
        until = time.monotonic() + PATIENCE
        while True:
            generation = self._look()
            if not generation.closed:
                try:
                    return work(Moment(self._client, generation, self._client.moment()))
                except Gone:
                    pass
            if time.monotonic() > until:
                raise StoreUnavailable(
                    f"collection {self.name!r} takes no changes now, since a reindex is about to be complete, or was "
                    f"interrupted then. Repeat the request; `millpond reindex {self.name}` goes on with it."
                )
            time.sleep(POLLED)

    def _update(self, moment: Moment, block: list[str], change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        target = moment.generation.target
        revision = self._clock.next(1)[0]
        for at in (moment, *([self._beside(moment, target)] if target is not None else [])):
            changed = []
            for kept in at.read(block, vectors=True).values():
                document = _with_metadata(kept, change(kept.document.metadata))
                of = encoded(document)
                if repr(document.metadata) != repr(kept.document.metadata):
                    assert kept.vectors is not None
                    changed.append((of, of.rows(kept.vectors, document.spans, kept.sequence, revision)))
            put(self._client, at.generation.physical, changed)
            tidy(self._later(at), block)

    def _remove(self, moment: Moment, owners: Sequence[str]) -> None:
        remove(moment, owners)
        if (target := moment.generation.target) is not None:
            remove(self._beside(moment, target), owners)

    def _selected(self, moment: Moment, selection: Selection) -> tuple[list[dict[str, Any]], list[str]]:
        """Return owner and bytes of the selected documents, and the ids that no document has."""
        columns = [OWNER, BYTES]
        if selection.ids is not None:
            owners = {id_: owner_of(id_) for id_ in checked_ids(selection.ids)}
            found = moment.heads([*owners.values()], columns)
            return [*found.values()], [id_ for id_, owner in owners.items() if owner not in found]
        where = HEAD if selection.filter is None else moment.matching(as_filter(selection.filter))
        return list(moment.all(where, columns)), []

    def _later(self, moment: Moment) -> Moment:
        """Return the same at this moment, which has what was just written."""
        return replace(moment, at=self._client.moment())

    def _beside(self, moment: Moment, target: Target) -> Moment:
        """Return what a rebuild has collected."""
        described = self._client.describe(target.physical)
        if described is None:
            raise Gone
        return replace(moment, generation=Generation.of(described))

    def _note(self, generation: Generation, precision: str) -> None:
        """Note in which precision vectors are made."""
        if precision not in generation.precisions:
            noted = replace(generation, precisions=tuple(sorted({*generation.precisions, precision})))
            self._client.set_properties(generation.physical, noted.properties("precisions"))

    def _set(self, generation: Generation, *parts: Part) -> None:
        """Keep other parts of the present generation."""
        self._client.set_properties(generation.physical, generation.properties(*parts))
        self.show(generation)


def _with_metadata(kept: Kept, metadata: dict[str, Any]) -> Document:
    return replace(kept.document, metadata=metadata)
