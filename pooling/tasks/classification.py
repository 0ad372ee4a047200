"""Classification: how much of a label a linear classifier can read from the vectors (a linear probe)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pooling.tasks.columns import label, shown, text
from pooling.tasks.task import DataError, Indices, Outcomes, Part, Task, Values, Vectors, distinct, take

Labels = NDArray[np.int64]

FOLDS: Final = 5
"""Of cross-validation; also the fewest texts of a class, since each fold needs one."""


class Classification(Task):
    """Texts, each with the label of its class."""

    columns = (("text", text), ("label", label))
    layout, data, kind, items = "classification", "labelled texts", "classification", "texts"
    metrics = ("accuracy", "macro_f1")

    def __init__(self, texts: Sequence[str], labels: Sequence[str]) -> None:
        self.texts, self.labels = texts, labels
        embedded, self._indices = distinct(texts)
        names, self._classes = distinct(labels)
        self._class_count = len(names)
        self.parts = (Part(embedded),)
        self.size = len(labels)

    @property
    def rows(self) -> list[frozenset[str]]:
        """The texts."""
        return [frozenset([text]) for text in self.texts]

    def select(self, rows: Sequence[int]) -> Classification:
        """Return the task of some of the texts."""
        return Classification(*take(rows, self.texts, self.labels))

    def check_variety(self) -> None:
        """Check that there are several classes, each with enough texts."""
        counts = Counter(self.labels)
        if len(counts) == 1:
            raise DataError(f"every text has the label {shown(self.labels[0])!r}; a classifier needs two or more.")
        if rare := [name for name, count in counts.items() if count < FOLDS]:
            few = [f"{shown(name)!r} ({counts[name]})" for name in rare[:5]]
            raise DataError(
                f"each label needs at least {FOLDS} texts, one for each fold of the linear probe; "
                f"too few have {', '.join(few)}{', ...' if rare[5:] else ''}."
            )

    def outcomes(self, parts: Sequence[Vectors]) -> Outcomes:
        """Predict the class of each text."""
        vectors = parts[0][self._indices]
        return predictions(vectors, self._classes, [vectors], look=self.look).squeeze(0)

    def score(self, outcomes: Outcomes, chosen: Indices) -> Values:
        """Compute accuracy and macro-averaged F1."""
        classes = self._classes[chosen]
        return np.stack([accuracy(outcomes, classes), macro_f1(outcomes, classes, self._class_count)], axis=-1)

    def perturbable(self, chosen: Indices) -> Part:
        """Return the chosen texts."""
        return Part([self.texts[item] for item in chosen])

    def perturbed_outcomes(self, chosen: Indices, versions: Sequence[Vectors], parts: Sequence[Vectors]) -> Outcomes:
        """Predict the class of each perturbed text by a probe that is fitted on unperturbed ones."""
        vectors = parts[0][self._indices]
        perturbed = [vectors.copy() for _ in versions]
        for whole, version in zip(perturbed, versions, strict=True):
            whole[chosen] = version
        return predictions(vectors, self._classes, perturbed, look=self.look)[:, chosen]


def predictions(
    vectors: Vectors,
    labels: Labels,
    versions: Sequence[Vectors],
    seed: int = 0,
    look: Callable[[], object] = lambda: None,
) -> Labels:
    """Predict the label of each text by a logistic regression fitted on the other folds.

    Args:
        vectors: (texts, dim), to fit on.
        labels: (texts,), integers; at least two classes and `FOLDS` texts of each.
        versions: (texts, dim) each, to predict for: the same vectors, or those of perturbed texts.
        seed: of the stratified folds.
        look: called before each of them; what it raises ends the work.

    Returns:
        (versions, texts).
    """
    found = np.empty((len(versions), len(labels)), dtype=np.int64)
    for fitting, held_out in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(vectors, labels):
        look()
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        probe.fit(vectors[fitting], labels[fitting])
        for row, version in enumerate(versions):
            found[row, held_out] = probe.predict(version[held_out])
    return found


def accuracy(predicted: Labels, labels: Labels) -> Values:
    """Compute the share of correct predictions, (...,), from `predicted` (..., texts)."""
    found: Values = (predicted == labels).mean(axis=-1)
    return found


def macro_f1(predicted: Labels, labels: Labels, classes: int) -> Values:
    """Compute the mean F1, (...,), over the classes that occur, from `predicted` (..., texts)."""
    total, present = np.zeros(predicted.shape[:-1]), 0
    for one in range(classes):
        guessed, true = predicted == one, labels == one
        if not true.any():
            continue
        present += 1
        total += 2 * (guessed & true).sum(axis=-1) / (guessed.sum(axis=-1) + true.sum())
    return total / present
