"""How close the vectors of an encoder in fewer bits are to float32's, on texts that it was not calibrated with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from service.arrays import Vectors
from service.encoder.progress import Progress, no_progress
from service.encoder.quantization.calibration import Batch
from service.errors import CheckpointError

States = Callable[[NDArray[np.int64], NDArray[np.bool_]], Tensor]
"""Token ids and mask, both (batch, time) -> states (batch, time, dim)."""

_NEIGHBOURS: Final = 5


@dataclass(frozen=True)
class Agreement:
    """How much of float32's geometry an encoder in another precision keeps.

    Args:
        texts: how many texts it is measured on.
        mean_cosine: mean cosine of a text's vector with its float32 vector.
        least_cosine: the least of these cosines.
        rank_correlation: Spearman's, between the similarities of all pairs of texts.
        neighbours: share of a text's five nearest neighbours that stay among the five nearest.
    """

    texts: int
    mean_cosine: float
    least_cosine: float
    rank_correlation: float
    neighbours: float

    def check(self, name: str, precision: str) -> None:
        """Refuse an encoder whose vectors have changed too much.

        Raises:
            CheckpointError: with the measured and the required values, and what to do.
        """
        short = [
            f"{label} is {value:.3f} and must be {least:.3f}"
            for label, value, least in self.compared()
            if not value >= least  # also for NaN
        ]
        calibrated = ", or name texts of the kind that will be served in runtime.calibration"
        other = calibrated if precision == "int8" else ""
        if short:
            raise CheckpointError(
                f"{name}: {precision} changes its vectors too much, measured on {self.texts} texts: "
                f"{'; '.join(short)}. Set runtime.precision to fp32{other}."
            )

    def compared(self) -> list[tuple[str, float, float]]:
        """Return each measure's name, its value, and the least that is served."""
        return [(label, getattr(self, field), least) for field, label, least in LEAST]


# all-MiniLM-L6-v2 on the packaged texts, and what int8 costs it on STS-B's test pairs (Spearman, times 100):
#
#                                               mean cosine  least  rank corr.  neighbours  STS-B
# NNCF's graph                                        0.995  0.974       0.992        0.90   -0.1
# ranges as they come: no smoothing, no clipping      0.992  0.979       0.986        0.86   -0.2
# inputs in seven bits, weights in eight              0.974  0.931       0.960        0.80   -0.9
# one of its 37 layers off by a factor of two         0.970  0.903       0.949        0.80   -0.3
# inputs and weights in six bits                      0.901  0.799       0.851        0.65   -3.9
#
# The first two are served. Neighbours among texts that have little in common are near ties, hence the low bar.
LEAST: Final = (
    ("mean_cosine", "mean cosine", 0.985),
    ("least_cosine", "least cosine", 0.9),
    ("rank_correlation", "rank correlation", 0.975),
    ("neighbours", "neighbours kept", 0.75),
)
"""Field of `Agreement`, its name in words, and the least that is served."""


def measure(reference: Vectors, candidate: Vectors) -> Agreement:
    """Compare the unit vectors of the same texts in float32 and another precision, both (texts, dim).

    Raises:
        ValueError: the shapes differ, or there are fewer than three texts.
    """
    if reference.shape != candidate.shape or len(reference) < 3:
        raise ValueError(f"vectors of {reference.shape} and {candidate.shape} cannot be compared")
    cosines = (reference * candidate).sum(1)
    wanted, found = reference @ reference.T, candidate @ candidate.T
    pairs = np.triu_indices(len(reference), 1)
    return Agreement(
        texts=len(reference),
        mean_cosine=float(cosines.mean()),
        least_cosine=float(cosines.min()),
        rank_correlation=float(np.corrcoef(_ranks(wanted[pairs]), _ranks(found[pairs]))[0, 1]),
        neighbours=_overlap(wanted, found),
    )


def vectors(states: States, batches: Sequence[Batch], progress: Progress = no_progress) -> Vectors:
    """Return unit vectors of texts, (texts, dim), in the order of the batches: the mean of each text's states."""
    pooled: list[Tensor] = []
    with torch.inference_mode():
        for done, (ids, mask) in enumerate(batches):
            progress("measure", done, len(batches))
            weights = torch.from_numpy(mask).float()[..., None]
            pooled.append(functional.normalize((states(ids, mask) * weights).sum(1) / weights.sum(1), dim=1))
    progress("measure", len(batches), len(batches))
    return torch.cat(pooled).numpy()


def _ranks(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return ranks; ties need no care, since similarities of different texts are never quite equal."""
    return np.argsort(np.argsort(values, kind="stable"), kind="stable")


def _overlap(wanted: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    count = min(_NEIGHBOURS, len(wanted) - 2)
    both = [
        _nearest(first, text, count) & _nearest(second, text, count)
        for text, (first, second) in enumerate(zip(wanted, found, strict=True))
    ]
    return sum(map(len, both)) / (count * len(both))


def _nearest(similarities: NDArray[np.float32], text: int, count: int) -> set[int]:
    order = np.argsort(-similarities, kind="stable")
    return set(order[order != text][:count].tolist())
