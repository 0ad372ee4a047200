"""Sequences of token ids to check an encoder with, and how long a checked one may be."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import numpy as np
from numpy.typing import NDArray

_PRODUCTS: Final = 2e11
"""Most multiplications with weights for one checked sequence: a few seconds on two cores."""

UNBOUNDED: Final = 512
"""Tokens of the longest sequence for an encoder that has no limit of its own: what such are trained on."""


def draw(vocabulary: int, shape: tuple[int, ...], *, avoid: Collection[int] = (), seed: int) -> NDArray[np.int64]:
    """Return random token ids, the same for the same arguments.

    Args:
        vocabulary: the ids are below it.
        shape: of what is returned.
        avoid: ids that are not drawn, unless there are no others, since architectures treat them specially.
    """
    usual = np.setdiff1d(np.arange(vocabulary), list(avoid))
    return np.random.default_rng(seed).choice(usual if len(usual) else np.arange(max(vocabulary, 1)), shape)


def affordable(weights: int) -> int:
    """Return how many tokens a checked sequence may have, by how many weights each is multiplied with."""
    return int(_PRODUCTS / max(weights, 1))
