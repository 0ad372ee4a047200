"""The vectors of a collection in the store, for an index that does not hold them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from service.arrays import Keys, Vectors
from service.store.store import Store


@dataclass(frozen=True, slots=True)
class StoredVectors:
    """What the store has of a collection's vectors of `dim` numbers, for whichever moment the thread sees it at."""

    store: Store
    collection: int
    dim: int

    def blocks(self, after: int, last: int) -> Iterator[tuple[Keys, Vectors]]:
        """Yield the vectors (n, dim) of keys above `after` up to `last`, and the key of each (n,), by ascending key.

        Each block is read on its own, so that the log of changes need not be kept while they are worked on.
        """
        while after < last:
            with closing(self.store.vectors(self.collection, self.dim, after)) as read:
                keys, vectors = next(read, (np.empty(0, np.int64), np.empty((0, self.dim), np.float32)))
            stop = int(np.searchsorted(keys, last, "right"))
            if not stop:
                return
            yield keys[:stop], vectors[:stop]
            after = int(keys[-1])

    def at(self, places: Sequence[tuple[int, int | None]]) -> list[Vectors | None]:
        """Return the vectors (n, dim) at places, which are a key and the ordinal of one or None for all.

        None stands for a key that there is no more.
        """
        return self.store.vectors_at(self.dim, places)
