"""A built part of an index without those of its vectors that were removed since."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, Generic, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.arrays import Keys
from service.index.base import DamagedSnapshot
from service.index.rows import distinct, held, once

_SPARSE: Final = 50
"""One of how many keys is allowed at most, where they are looked up one by one."""


class Keyed(Protocol):
    """Vectors at positions in the order of their keys."""

    @property
    def keys(self) -> Keys:
        """The key of each (n,), ascending."""


Part = TypeVar("Part", bound=Keyed)


@dataclass(frozen=True, eq=False)
class Live(Generic[Part]):
    """Which vectors of a part are found."""

    part: Part
    live: NDArray[np.bool_] | None
    """Which vectors are there still (n,); None for all."""
    length: int
    """How many they are."""
    count: int
    """How many keys they have."""

    @classmethod
    def whole(cls, part: Part) -> Self:
        """Return a part from which nothing was removed."""
        return cls(part, None, len(part.keys), distinct(part.keys))

    def __len__(self) -> int:
        """Return the number of vectors, with those that were removed."""
        return len(self.part.keys)

    @property
    def last(self) -> int:
        """The highest key."""
        return int(self.part.keys[-1])

    @property
    def keys(self) -> Keys:
        """The keys of those that are there still, ascending, each once."""
        return once(self.part.keys if self.live is None else self.part.keys[self.live], self.count)

    @property
    def deleted(self) -> int:
        """How many vectors were removed."""
        return len(self) - self.length

    def worn(self, share: float) -> bool:
        """Whether more than a share of the vectors was removed."""
        return self.deleted > share * len(self)

    def without(self, keys: Keys) -> Self:
        """Return the part without the vectors of `keys`; absent keys are ignored."""
        positions = self.positions(keys)
        if not len(positions):
            return self
        live = np.ones(len(self), bool) if self.live is None else self.live.copy()
        live[positions] = False
        count = self.count - distinct(self.part.keys[positions])
        return replace(self, live=live, length=self.length - len(positions), count=count)

    def positions(self, keys: Keys | None) -> Keys:
        """Return the positions, ascending, of the vectors of `keys` that are there still, or of all for None."""
        if keys is None:
            return np.arange(len(self)) if self.live is None else np.flatnonzero(self.live)
        keys = np.unique(keys)
        starts = np.searchsorted(self.part.keys, keys)
        lengths = np.searchsorted(self.part.keys, keys, "right") - starts
        ends = np.cumsum(lengths)
        positions: Keys = np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - lengths), lengths)
        return positions if self.live is None else positions[self.live[positions]]

    def chosen(self, keys: Keys | None) -> NDArray[np.bool_] | None:
        """Return which vectors (n,) are of `keys` and there still; None for all."""
        if keys is None:
            return self.live
        if len(keys) < len(self) // _SPARSE:
            chosen = np.zeros(len(self), bool)
            chosen[self.positions(keys)] = True
            return chosen
        chosen = held(self.part.keys, keys)
        return chosen if self.live is None else chosen & self.live

    @cached_property
    def bits(self) -> NDArray[np.uint8] | None:
        """A bit for each vector, whether it is there still, as FAISS takes it; None for all."""
        return None if self.live is None else packed(self.live)


L = TypeVar("L", bound=Live[Any])


def packed(chosen: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return a bit for each of the marks (n,), as FAISS takes it."""
    bits: Any = np.packbits(chosen, bitorder="little")
    return bits  # type: ignore[no-any-return]


def restored(parts: Sequence[L], keys: Keys) -> list[L]:
    """Return parts without the vectors whose keys are not among `keys`, ascending; raises `DamagedSnapshot`.

    Parts follow one another in the order of keys, and must have all of `keys` up to the last of theirs.
    """
    kept = [each.without(each.part.keys[~held(each.part.keys, keys)]) for each in parts]
    covered = int(np.searchsorted(keys, parts[-1].last, "right"))
    if lacking := covered - sum(each.count for each in kept):
        raise DamagedSnapshot(f"it lacks {lacking} documents")
    return kept
