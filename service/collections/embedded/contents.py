"""What a collection holds: its rows in the store, and the index over their vectors, always of the same moment."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from service import index as indexes
from service.arrays import Keys, Vectors
from service.collections.embedded.builder import Builder
from service.collections.embedded.lock import ReadWriteLock
from service.collections.embedded.moment import Moment
from service.collections.embedded.progress import Progress
from service.collections.embedded.stored import StoredVectors
from service.collections.provenance import Definition
from service.errors import InvalidVector, NotFound, StaleDefinition, StoreDamaged, StoreUnavailable
from service.index import EXACT, Build, BuiltIndex, DamagedSnapshot, IndexView, VectorIndex
from service.store.filters import Filter
from service.store.store import Store
from service.store.transaction import Change, CollectionRow, Transaction

logger = logging.getLogger(__name__)


class Contents:
    """The rows of a collection and the index over their vectors: loaded, read and changed together, built aside.

    A search sees all of an upsert or none of it: it takes the collection as it is and a snapshot of the store, whose
    count of changes tells that they belong together. They do but for the instant between a commit and the publishing
    of the changed index. Who comes then waits for that: both happen under a write lock, under the read lock neither.
    So a search waits for no disk, and no change for a search.
    """

    def __init__(
        self,
        store: Store,
        row: CollectionRow,
        builder: Builder,
        snapshots: Path,
        vectors: Iterable[tuple[Keys, Vectors]] | None = None,
    ) -> None:
        """Open a collection; `vectors` are all of its own, in blocks, where the store has them not committed yet."""
        self.name = row.name
        self.created = row.created
        """In UTC."""
        self.idle_timeout = row.idle_timeout
        """Seconds without use after which it is to be dropped; None: never."""
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
        self.tokenizer = row.tokenizer
        """How its texts become terms; None where it has no keyword index."""
        index = self._loaded_index() if vectors is None else self._filled(self._empty_index(row), row, vectors)
        self._index: VectorIndex | None = index  # None where it must be loaded before the next change
        self._now: Moment | None = self._moment_of(index)  # what is searched; None where it must be loaded before
        self._build: Build[Any] | None = None

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        return self._row.dim

    def ask_for_build(self) -> None:
        """Let a part of the index be built that is due, aside."""
        if isinstance(self._index, BuiltIndex) and self._index.due:
            self._builder.ask(self, self.build)

    def build(self, stopped: Callable[[], bool]) -> bool:
        """Build the part of the index that is due, aside from changes and searches, and publish it.

        Returns whether another is due already. Ends without it where `stopped` becomes true, where the collection
        is dropped or the index replaced meanwhile, or where it cannot be built, which the index's state then says.
        """
        with self._store.writing():  # keeps changes away
            index = self._index
            if not isinstance(index, BuiltIndex) or not index.due:
                return False
            begun = self._build = index.begin()
        try:
            part, problem = self._run(index, begun, stopped)
            with self._store.writing() as transaction:
                if self._index is not index:
                    self._remove_snapshot(None if part is None else index.adopt(part))
                    return True
                if part is not None:
                    self._adopt(transaction, index, part)
                else:
                    index.abandon(problem)
                    self._show(view=index.view())
            return index.due
        finally:
            self._build = None

    def _run(self, index: BuiltIndex[Any], build: Build[Any], stopped: Callable[[], bool]) -> tuple[Any, str | None]:
        """Return what a build has made, None where it ended before, and why it cannot be made."""
        progress = Progress(self.name, len(index), build) if index.view().state.uses == EXACT else None

        def ends() -> bool:
            if progress is not None:
                progress.tell()
            replaced = self._index is not None and self._index is not index  # None while it is being changed
            return self._dropped or replaced or stopped()

        try:
            part = build.run(ends)
        except Exception as error:
            if not ends():  # what is gone cannot be read
                logger.exception("collection %r: the index cannot be built", self.name)
            return None, f"the index cannot be built: {error}"
        if part is not None and progress is not None:
            progress.end()
        return part, None

    def _adopt(self, transaction: Transaction, index: BuiltIndex[Any], part: Any) -> None:
        """Search with a part that was built, and note its snapshot in place of the one before."""
        before, snapshot = self._row.snapshot, index.adopt(part)
        try:
            row = transaction.name_snapshot(self._row, snapshot)
            transaction.commit()
            self._row = row
            self._show(view=index.view())
        except BaseException:
            self._remove_snapshot(snapshot)  # which nothing names
            raise
        self._remove_snapshot(before)

    def _built(self) -> float | None:
        """Return how much of a build is done that runs or waits, None where there is none."""
        build = self._build
        if build is not None:
            return round(build.done, 3)
        return 0.0 if self._builder.has(self) else None

    def _saved(self) -> str | None:
        """Return when the index's snapshot was written, None where there is none."""
        snapshot = self._row.snapshot
        written = None if snapshot is None else indexes.snapshot_time(self._snapshots, snapshot)
        return None if written is None else written.isoformat(timespec="seconds")

    @contextmanager
    def publishing(self, changes: Sequence[Change]) -> Iterator[None]:
        """Change the index as the store was changed, and publish it with the commit in the block, as `Publisher`."""
        index, self._index = self._index, None  # which is ahead of the store if the commit fails
        try:
            if index is None:
                index = self._loaded_index()  # of the store with the changes
            else:
                removed = np.concatenate([change.removed for change in changes])
                index.remove(removed)
                for change in changes:
                    kept = np.isin(change.added, removed, invert=True)
                    index.add(change.added[kept], change.vectors[kept])
        except Exception:
            # Documents can be stored without it; the index must catch up.
            logger.exception("collection %r: index change failed; it will be rebuilt from the store", self.name)
            index = None
        now = None if index is None else self._moment_of(index)
        with self._lock.writing():
            yield
            self._index, self._now = index, now
        self.ask_for_build()

    @contextmanager
    def _reading(self) -> Iterator[IndexView]:
        """Yield the index as it is now; what this thread reads from the store meanwhile agrees with it."""
        with self._moment() as moment:
            yield moment.view

    @contextmanager
    def _moment(self) -> Iterator[Moment]:
        """Yield the collection as it is now; what this thread reads from the store meanwhile agrees with it."""
        with ExitStack() as until_read:
            moment = self._taken(until_read) or self._taken_in_turn(until_read)
            try:
                yield moment
            except OSError as error:
                self._forget(moment)
                raise StoreUnavailable(
                    f"collection {self.name!r}: the snapshot of its index cannot be read ({error}). The index is "
                    "loaded from the store again; repeat the request."
                ) from error

    def _taken(self, until_read: ExitStack) -> Moment | None:
        """Return the collection as it is, and begin the store's snapshot of it; None where they do not agree now."""
        now = self._now
        with ExitStack() as unless_agreed:
            version = unless_agreed.enter_context(self._store.snapshot(self._row.key))
            self._require_present()
            if now is None or version != now.version:
                return None
            until_read.push(unless_agreed.pop_all())
        return now

    def _taken_in_turn(self, until_read: ExitStack) -> Moment:
        """Do the same once no change is being published, and load the index where it must be."""
        while True:
            with self._lock.reading():
                self._require_present()
                if (now := self._now) is not None:
                    until_read.enter_context(self._store.snapshot(self._row.key))
                    return now
            with self._lock.writing():
                self._require_present()
                if self._now is None:
                    self._index = self._loaded_index()
                    self._now = self._moment_of(self._index)
            self.ask_for_build()

    def _moment_of(self, index: VectorIndex) -> Moment:
        """Return the collection with an index that has the vectors of the store as this thread sees it."""
        return Moment(index.view(), self.definition, self._row.dim, self._store.version(self._row.key))

    def _show(self, **changed: Any) -> None:
        """Search the same vectors with another view of the index, or under another definition."""
        with self._lock.writing():
            if self._now is not None:
                self._now = replace(self._now, **changed)

    def _forget(self, moment: Moment) -> None:
        """Let the next reader or change load the index from the store, in place of one that fails."""
        with self._lock.writing():
            if self._now is moment:
                self._index = self._now = None

    def _matching(self, filter_: Filter | None, view: IndexView) -> Keys | None:
        """Return the keys, ascending, of the documents that match a filter, None for all."""
        return None if filter_ is None else self._store.matching(self._row.key, filter_, lambda: view.keys)

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
        return self._filled(index, row, self._store.vectors(row.key, row.dim, covered))

    def _filled(self, index: VectorIndex, row: CollectionRow, blocks: Iterable[tuple[Keys, Vectors]]) -> VectorIndex:
        """Return an index with stored vectors in it; raises `StoreDamaged` for those that cannot be compared."""
        similarity = Definition.from_json(row.definition).similarity
        for keys, vectors in blocks:
            try:
                similarity.check(vectors)
            except InvalidVector as error:
                raise StoreDamaged(
                    f"collection {self.name!r}: the file is damaged: of its stored vectors, {error.detail} Restore "
                    "the file from a backup."
                ) from None
            index.add(keys, vectors)
        return index

    def _empty_index(self, row: CollectionRow) -> VectorIndex:
        similarity = Definition.from_json(row.definition).similarity
        source = StoredVectors(self._store, row.key, row.dim)
        return indexes.build(row.index_kind, row.dim, similarity, row.recall, self._snapshots, source)

    def _remove_snapshot(self, name: str | None) -> None:
        """Remove the files of a snapshot that are no part of the present one."""
        if name is not None:
            indexes.remove_snapshot(self._snapshots, name, None if self._dropped else self._row.snapshot)

    def _require_present(self) -> None:
        if self._dropped:
            raise NotFound(f"collection {self.name!r} was dropped.")

    def _require_current(self, under: Definition | None, definition: Definition) -> None:
        if under is not None and under != definition:
            raise StaleDefinition(f"collection {self.name!r} was rebuilt under another definition meanwhile.")

    def _absent(self, document_id: str) -> NotFound:
        return NotFound(f"collection {self.name!r} has no document {document_id!r}.")
