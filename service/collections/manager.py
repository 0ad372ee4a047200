"""Every collection of a store, by name."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from service.collections.collection import Collection
from service.errors import Conflict, InvalidName, InvalidVector, NotFound
from service.index.flat import build_index
from service.store.store import Store

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


class Collections:
    """The collections in a folder; every method is thread-safe.

    Every method that reads or writes the store raises `StoreUnavailable` when it cannot.
    Opening reads every vector into memory. One process at a time can have a folder open.
    """

    def __init__(self, store_path: Path) -> None:
        self._store = Store(store_path)
        try:
            self._by_name = {row.name: Collection(self._store, row) for row in self._store.collections()}
        except BaseException:
            self._store.close()
            raise

    def create(self, name: str, definition: dict[str, Any], dim: int, index: str = "flat") -> tuple[Collection, bool]:
        """Return the collection of this name, and whether it is new.

        `definition` is any JSON object: it is stored, and compared when the name exists. `dim` is the length
        of a vector, `index` the kind of index.
        Raises `InvalidName`, `InvalidIndex`, `InvalidVector` for a `dim` below one, and `Conflict` if the
        name exists with another definition, dimension or index.
        """
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InvalidName(
                f"collection name {name!r}: a name has 1 to 128 of the characters A-Z a-z 0-9 _ . - "
                "and begins with a letter or a digit."
            )
        if dim < 1:
            raise InvalidVector(f"collection {name!r}: a vector has at least one dimension, not {dim}.")
        build_index(index, dim)  # an unknown kind must fail before anything is stored
        with self._store.writing() as transaction:
            if existing := self._by_name.get(name):
                stored = (existing.definition, existing.dim, existing.index_kind)
                if _canonical(*stored) != _canonical(definition, dim, index):
                    raise Conflict(name, _described(*stored), _described(definition, dim, index))
                return existing, False
            collection = Collection(self._store, transaction.create(name, definition, dim, index))
            transaction.commit()
            self._by_name[name] = collection
            return collection, True

    def get(self, name: str) -> Collection:
        """Return the collection of this name; raises `NotFound`."""
        if collection := self._by_name.get(name):
            return collection
        raise NotFound(f"there is no collection {name!r}; create it first.")

    def list(self) -> Sequence[Collection]:
        """Return all collections, by name."""
        return sorted(self._by_name.values(), key=lambda collection: collection.name)

    def drop(self, name: str) -> None:
        """Delete a collection with all its documents; raises `NotFound`."""
        with self._store.writing() as transaction:
            self.get(name).drop(transaction)
            del self._by_name[name]

    def close(self) -> None:
        """Wait for the write under way and close the store; later calls raise `StoreUnavailable`."""
        self._store.close()


def _canonical(definition: dict[str, Any], dim: int, index: str) -> str:
    return json.dumps([definition, dim, index], sort_keys=True)


def _described(definition: dict[str, Any], dim: int, index: str) -> dict[str, Any]:
    return {"dimension": dim, "index": index, **definition}
