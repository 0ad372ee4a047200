"""How much of a text its vector retains, in two figures that need no labels.

* **Words recovered**: how well a linear map predicts from the vector which words the text has. A ridge regression
  from vectors to the presence of each of the most common tokens is fitted on half of the texts. For each held-out
  text with m of those tokens, it is the share of them among the m that are predicted most strongly; the mean over
  texts is reported. `chance` is the figure for always predicting the most common tokens.
* **Sameness**: the mean cosine of random pairs of texts. At 0, vectors point in all directions; near 1, all texts
  look alike and only small differences tell them apart (anisotropy; Ethayarajh 2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler

from pooling.tasks.similarity import cosines
from service.arrays import Vectors

Presence = NDArray[np.bool_]

LEAST_TEXTS: Final = 100
_MOST_TOKENS: Final = 500
_LEAST_SHARE: Final = 0.01
_MOST_SHARE: Final = 0.5
_PENALTIES: Final = (1.0, 10.0, 100.0, 1000.0, 10_000.0)
_PAIRS: Final = 10_000


@dataclass(frozen=True)
class Information:
    """Figures of one strategy, as the module defines them; shares of 1."""

    words_recovered: float
    chance: float
    sameness: float


def presence(ids: Sequence[NDArray[np.int64]]) -> Presence:
    """Return which of the most common tokens each text has, (texts, tokens).

    Tokens in more than half of the texts, such as special ones, are left out; so are those in less than 1 %.
    """
    distinct = [np.unique(row) for row in ids]
    tokens, counts = np.unique(np.concatenate(distinct), return_counts=True)
    shares = counts / len(ids)
    common = tokens[np.argsort(-counts, kind="stable")]
    kept = np.isin(common, tokens[(shares >= _LEAST_SHARE) & (shares <= _MOST_SHARE)])
    chosen = common[kept][:_MOST_TOKENS]
    return np.array([np.isin(chosen, row) for row in distinct])


def measure(vectors: Vectors, present: Presence, seed: int = 0) -> Information | None:
    """Measure one strategy.

    Args:
        vectors: (texts, dim).
        present: what `presence` returned for the same texts.
        seed: of the halves and the pairs.

    Returns:
        None if there are fewer than `LEAST_TEXTS` texts, or no token is common.
    """
    if len(vectors) < LEAST_TEXTS or not present.shape[1]:
        return None
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(vectors))
    fitting, held_out = order[: len(order) // 2], order[len(order) // 2 :]
    scaler = StandardScaler().fit(vectors[fitting])
    ridge = RidgeCV(alphas=_PENALTIES).fit(scaler.transform(vectors[fitting]), present[fitting].astype(np.float64))
    predicted = ridge.predict(scaler.transform(vectors[held_out])).reshape(len(held_out), -1)
    common = np.broadcast_to(present[fitting].mean(axis=0), predicted.shape)
    first = generator.integers(0, len(vectors), _PAIRS)
    second = (first + generator.integers(1, len(vectors), _PAIRS)) % len(vectors)
    return Information(
        words_recovered=_recovered(predicted, present[held_out]),
        chance=_recovered(common, present[held_out]),
        sameness=float(cosines(vectors[first], vectors[second]).mean()),
    )


def _recovered(ranked: NDArray[np.float64], present: Presence) -> float:
    """Compute the share of each text's m tokens among the m ranked first; the mean over texts that have any."""
    ranks = np.argsort(np.argsort(-ranked, axis=1, kind="stable"), axis=1)
    sizes = present.sum(axis=1)
    hits = (present & (ranks < sizes[:, None])).sum(axis=1)
    return float((hits[sizes > 0] / sizes[sizes > 0]).mean()) if sizes.any() else 0.0
