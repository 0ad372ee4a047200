"""Prepared vectors in a file, read a few at a time so that they take the memory of the page cache alone."""

from __future__ import annotations

import os
import weakref
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from service.arrays import Keys, Vectors

BLOCK: Final = 1 << 22
"""Bytes that are read at once where all are read."""


@dataclass(frozen=True, eq=False)
class VectorFile:
    """The vectors (n, dim) from an offset on of an open file, which is closed when nothing holds it any more."""

    descriptor: int
    offset: int
    dim: int
    _closing: object = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_closing", weakref.finalize(self, os.close, self.descriptor))

    def rows(self, positions: Keys) -> Vectors:
        """Return the vectors (m, dim) at ascending positions (m,); raises `OSError`."""
        vectors = np.empty((len(positions), self.dim), np.float32)
        if not len(positions):
            return vectors
        size = 4 * self.dim
        starts = np.flatnonzero(np.diff(positions, prepend=positions[0] - 2) != 1)
        ends = [*starts[1:].tolist(), len(positions)]
        for start, end, position in zip(starts.tolist(), ends, positions[starts].tolist(), strict=True):
            read = os.preadv(self.descriptor, [vectors[start:end].data], self.offset + position * size)
            if read != (end - start) * size:
                raise OSError(f"the file of vectors ends before position {position + end - start}")
        return vectors
