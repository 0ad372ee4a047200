"""Rebuilding a collection: vectors under another definition are collected beside those that are searched."""

from __future__ import annotations

from collections.abc import Sequence

from service.arrays import Keys
from service.collections.embedded.contents import Contents
from service.collections.embedded.moment import Moment
from service.collections.protocols import Rebuild
from service.collections.provenance import Definition
from service.errors import StaleDefinition
from service.store.document import Document, Embedded, validate
from service.store.transaction import RebuildRow, Transaction


class Rebuilding(Contents):
    """The part of a collection that gives it another definition.

    New vectors are collected over any number of runs of the process, and replace the old ones all at once.
    """

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

    def unbuilt(
        self, after: int | None = None, most: int = 64, characters: int = 262_144
    ) -> Sequence[tuple[int, Document]]:
        """Return the next documents that the rebuild has no vectors for, behind the one with the key `after`."""
        with self._reading():
            return self._store.unbuilt(self._row.key, after or 0, most, characters)

    def put_rebuilt(
        self, definition: Definition, keys: Sequence[int], vectors: Embedded, precision: str | None = None
    ) -> None:
        """Store vectors of documents under the rebuild's definition, by the keys that `unbuilt` gave."""
        with self._store.writing() as transaction:
            self._require_present()
            if not self._put_rebuilt(transaction, keys, definition, vectors, precision):
                raise self._abandoned()
            transaction.commit()

    def finish_rebuild(self) -> bool:
        """Replace definition and vectors with the rebuilt ones, as one step for every reader."""
        with self._store.writing() as transaction:
            self._require_present()
            if transaction.rebuild(self._row.key) is None:
                raise self._abandoned()
            before, row = self._row.snapshot, transaction.exchange(self._row)
            if row is None:
                return False
            index = self._filled(self._empty_index(row), row, transaction.vectors(row.key, row.dim))
            definition = Definition.from_json(row.definition)
            now = Moment(index.view(), definition, row.dim, self._store.version(row.key))
            with self._lock.writing():
                transaction.commit()
                self._row, self.definition = row, definition
                self._index, self._now = index, now
        self._remove_snapshot(before)
        self.ask_for_build()
        return True

    def abandon_rebuild(self) -> bool:
        """Drop the rebuild and the vectors it has collected; return whether there was one."""
        with self._store.writing() as transaction:
            self._require_present()
            begun = transaction.rebuild(self._row.key) is not None
            transaction.end_rebuild(self._row.key)
            transaction.commit()
        return begun

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

    def _abandoned(self) -> StaleDefinition:
        return StaleDefinition(f"the rebuild of collection {self.name!r} was abandoned.")
