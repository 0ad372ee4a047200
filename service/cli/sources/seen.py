"""The ids that a source has had so far, in eight bytes each."""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

import numpy as np
from numpy.typing import NDArray

_RECENT: Final = 1 << 18


class Seen:
    """Ids by a hash of 64 bits: among ten million of them, one in 370,000 such sets takes two for the same."""

    def __init__(self) -> None:
        self._recent: set[int] = set()
        self._older: list[NDArray[np.uint64]] = []

    def add(self, document_id: str) -> bool:
        """Add an id; return whether it is new."""
        value = int.from_bytes(blake2b(document_id.encode(), digest_size=8).digest())
        if value in self._recent or any(_holds(part, value) for part in self._older):
            return False
        self._recent.add(value)
        if len(self._recent) == _RECENT:
            self._settle()
        return True

    def _settle(self) -> None:
        part = np.sort(np.fromiter(self._recent, np.uint64, len(self._recent)))
        self._recent = set()
        while self._older and len(self._older[-1]) <= len(part):  # so that there are few parts, each twice the next
            part = np.sort(np.concatenate([self._older.pop(), part]))
        self._older.append(part)


def _holds(values: NDArray[np.uint64], value: int) -> bool:
    place = int(np.searchsorted(values, np.uint64(value)))
    return place < len(values) and int(values[place]) == value
