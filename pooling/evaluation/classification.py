"""How much of a label a linear classifier reads off the vectors: the linear probe."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

Vectors = NDArray[np.float32]
Labels = NDArray[np.int64]

FOLDS: Final = 5
"""Also the fewest texts of a class: each fold needs one."""


def _probe() -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def predictions(vectors: Vectors, labels: Labels, seed: int = 0) -> Labels:
    """The label of each text by a logistic regression that was fitted on the other folds.

    Args:
        vectors: (texts, dim).
        labels: (texts,), whole numbers; at least two classes and `FOLDS` texts of each.
        seed: of the folds, which are stratified.

    """
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    found: Labels = cross_val_predict(_probe(), vectors, labels, cv=folds)
    return found


def predict(vectors: Vectors, labels: Labels, others: Vectors) -> Labels:
    """The labels of `others` by a logistic regression fitted on `vectors`."""
    found: Labels = _probe().fit(vectors, labels).predict(others)
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
