"""One collection of the embedded engine: its documents in the store, and the index over their vectors."""

from __future__ import annotations

from service.collections.embedded.changing import Changing
from service.collections.embedded.reading import Reading
from service.collections.embedded.searching import Searching
from service.store.transaction import CollectionRow, Transaction


class EmbeddedCollection(Reading, Searching, Changing):
    """A collection as `Collection` describes it, and the changes of its names, which the engine makes."""

    def rename(self, transaction: Transaction, name: str) -> None:
        """Take another name and commit; called by `EmbeddedEngine.rename`."""
        row = transaction.rename(self._row, name)
        transaction.commit()
        self._row, self.name = row, name

    def copy(self, transaction: Transaction, name: str) -> CollectionRow:
        """Copy definition and documents to a new collection; called by `EmbeddedEngine.copy`."""
        self._require_present()
        return transaction.copy(self._row, name)

    def alias(self, transaction: Transaction, name: str) -> None:
        """Take a further name and commit; called by `EmbeddedEngine.alias`."""
        self._require_present()
        transaction.set_alias(name, self._row.key)
        transaction.commit()

    def drop(self, transaction: Transaction) -> None:
        """Delete everything and commit; called by `EmbeddedEngine.drop`, which also removes the name."""
        transaction.drop(self._row.key)
        with self._lock.writing():
            transaction.commit()
            self._dropped = True
            self._index = self._now = None
        self._remove_snapshot(self._row.snapshot)
