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
        size = 4 * self.dim
        if not len(positions):
            return np.empty((0, self.dim), np.float32)
        starts = np.flatnonzero(positions[1:] - positions[:-1] != 1) + 1
        if 2 * len(starts) < len(positions):
            firsts, ends = [0, *starts.tolist()], [*starts.tolist(), len(positions)]
            runs = zip(positions[firsts].tolist(), firsts, ends, strict=True)
            parts = [
                os.pread(self.descriptor, (end - first) * size, self.offset + at * size) for at, first, end in runs
            ]
        else:  # each by itself, which is less to do for each
            parts = [os.pread(self.descriptor, size, self.offset + at * size) for at in positions.tolist()]
        read = b"".join(parts)
        if len(read) != len(positions) * size:
            raise OSError(f"the file of vectors ends before position {positions[-1]}")
        return np.frombuffer(read, np.float32).reshape(-1, self.dim)
