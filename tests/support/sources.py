"""Where an index reads its vectors again, in place of a store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from service.arrays import Keys, Vectors


class Source:
    """The vectors under keys that are there now, in small blocks."""

    def __init__(self, dim: int, block: int = 50) -> None:
        self.keys: Keys = np.empty(0, np.int64)
        self.vectors: Vectors = np.empty((0, dim), np.float32)
        self._block = block

    def add(self, keys: Keys, vectors: Vectors) -> None:
        """Add vectors (n, dim) under keys (n,) above all others."""
        self.keys, self.vectors = np.append(self.keys, keys), np.vstack([self.vectors, vectors])

    def remove(self, keys: Keys) -> None:
        """Remove the vectors of keys."""
        left = ~np.isin(self.keys, keys)
        self.keys, self.vectors = self.keys[left], self.vectors[left]

    def blocks(self, after: int, last: int) -> Iterator[tuple[Keys, Vectors]]:
        """Yield keys and vectors, in blocks that divide no key's run."""
        keys, vectors = self.keys, self.vectors
        start, stop = np.searchsorted(keys, [after, last], "right").tolist()
        while start < stop:
            end = int(np.searchsorted(keys, keys[min(start + self._block, stop) - 1], "right"))
            yield keys[start:end], vectors[start:end]
            start = end

    def at(self, places: Sequence[tuple[int, int | None]]) -> list[Vectors | None]:
        """Return the vectors of each key, or one of them."""
        keys = [key for key, _ in places]
        starts, ends = np.searchsorted(self.keys, keys), np.searchsorted(self.keys, keys, "right")
        found: list[Vectors | None] = []
        for start, end, (_, ordinal) in zip(starts.tolist(), ends.tolist(), places, strict=True):
            own = self.vectors[start:end]
            found.append(None if not len(own) else own if ordinal is None else own[ordinal : ordinal + 1])
        return found
