"""How much of a label a linear classifier reads off the vectors: the linear probe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

Vectors = NDArray[np.float32]
Labels = NDArray[np.int64]

FOLDS: Final = 5
"""Also the fewest texts of a class: each fold needs one."""


def predictions(vectors: Vectors, labels: Labels, versions: Sequence[Vectors], seed: int = 0) -> Labels:
    """The label of each text by a logistic regression that was fitted on the other folds.

    Args:
        vectors: (texts, dim), fitted on.
        labels: (texts,), whole numbers; at least two classes and `FOLDS` texts of each.
        versions: (texts, dim) each, predicted for: the same vectors, or those of the texts after a change.
        seed: of the folds, which are stratified.

    Returns:
        (versions, texts).

    """
    found = np.empty((len(versions), len(labels)), dtype=np.int64)
    for fitting, held_out in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(vectors, labels):
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        probe.fit(vectors[fitting], labels[fitting])
        for place, version in enumerate(versions):
            found[place, held_out] = probe.predict(version[held_out])
    return found


def accuracy(predicted: Labels, labels: Labels) -> NDArray[np.float64]:
    """The share of right predictions (..., texts)."""
    found: NDArray[np.float64] = (predicted == labels).mean(axis=-1)
    return found


def macro_f1(predicted: Labels, labels: Labels, classes: int) -> NDArray[np.float64]:
    """F1 of each class, and of these the mean over classes that occur; `predicted` is (..., texts)."""
    total, present = np.zeros(predicted.shape[:-1]), 0
    for one in range(classes):
        guessed, true = predicted == one, labels == one
        if not true.any():
            continue
        present += 1
        total += 2 * (guessed & true).sum(axis=-1) / (guessed.sum(axis=-1) + true.sum())
    found: NDArray[np.float64] = total / present
    return found
