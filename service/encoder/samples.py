"""Sequences of token ids to check an encoder with, and how long a checked one may be."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.arrays import Ids
from service.encoder.tokenizer import Tokenizer

_PRODUCTS: Final = 2e11
"""Most multiplications with weights for one checked sequence: a few seconds on two cores."""

UNBOUNDED: Final = 512
"""Tokens of the longest sequence for an encoder that has no limit of its own: what such are trained on."""
_POOL: Final = 64
"""Ids that the texts are made of."""


class Samples:
    """Texts of a few ids, framed as texts are."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._spec = tokenizer.spec
        self._framed = tokenizer.num_special
        self._ids = draw(usual(tokenizer.vocab_size, {*self._spec.special_ids, tokenizer.pad_id}), (_POOL,), 0)

    def each(self) -> list[Ids]:
        """Return a text of each id."""
        return [self._frame(self._ids[place : place + 1]) for place in range(len(self._ids))]

    def keep(self, kept: NDArray[np.bool_]) -> None:
        """Leave out the ids of the other texts that `each` gave."""
        self._ids = self._ids[kept]

    def texts(self, lengths: Sequence[int], longest: int) -> list[Ids]:
        """Return texts of these lengths and from the shortest to the longest, in order, at least two."""
        shortest = min(self._framed + 1, longest)
        found = sorted({shortest, longest, *(length for length in lengths if shortest < length < longest)})
        return [self.rows(1, length)[0] for length in (found if len(found) > 1 else found * 2)]

    def rows(self, rows: int, length: int) -> list[Ids]:
        """Return texts of the same length."""
        drawn = draw(self._ids, (rows, max(length - self._framed, 0)), length)
        return [self._frame(row)[:length] for row in drawn]

    def _frame(self, ids: Ids) -> Ids:
        return np.array([*self._spec.prefix, *ids, *self._spec.suffix], np.int64)


def usual(vocabulary: int, special: Collection[int]) -> Ids:
    """Return the ids below `vocabulary` without the special ones, which some architectures treat in their own way."""
    found = np.setdiff1d(np.arange(max(vocabulary, 1)), list(special))
    return found if len(found) else np.arange(max(vocabulary, 1))


def draw(ids: Ids, shape: tuple[int, ...], seed: int) -> Ids:
    """Return some of the ids at random, the same ones for the same arguments."""
    return np.random.default_rng(seed).choice(ids, shape)


def affordable(weights: int) -> int:
    """Return how many tokens a checked sequence may have, by how many weights each is multiplied with."""
    return int(_PRODUCTS / max(weights, 1))
