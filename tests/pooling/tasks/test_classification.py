"""The linear probe."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from pooling.tasks.classification import Classification, accuracy, macro_f1, predictions


def test_what_a_line_parts_is_told_apart():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    vectors = (np.eye(3)[labels] * 6 + rng.normal(size=(60, 3))).astype(np.float32)
    plain, moved = predictions(vectors, labels, [vectors, np.roll(vectors, 1, axis=1)])
    assert (plain == labels).mean() > 0.95
    assert (moved == (labels + 1) % 3).mean() > 0.95


def test_no_text_is_predicted_by_a_probe_that_has_seen_it():
    labels = np.random.default_rng(0).permutation(np.arange(40) % 2)
    [found] = predictions(np.eye(40, dtype=np.float32), labels, [np.eye(40, dtype=np.float32)])
    assert (found == labels).mean() <= 0.6  # each vector says which text it is, and nothing of any other


def test_scores_are_those_of_sklearn():
    rng = np.random.default_rng(0)
    labels, guesses = rng.integers(0, 4, 50), rng.integers(0, 4, (3, 50))
    assert accuracy(guesses, labels) == pytest.approx([accuracy_score(labels, each) for each in guesses])
    wanted = [f1_score(labels, each, average="macro", labels=np.unique(labels)) for each in guesses]
    assert macro_f1(guesses, labels, 4) == pytest.approx(wanted)
    some = labels != 2  # a class that a sample has none of does not count
    wanted = [f1_score(labels[some], each[some], average="macro", labels=[0, 1, 3]) for each in guesses]
    assert macro_f1(guesses[:, some], labels[some], 4) == pytest.approx(wanted)


def test_a_fit_is_ended_by_who_watches():
    class Ended(Exception):
        pass

    folds = []

    def look():
        folds.append(1)
        if len(folds) == 3:
            raise Ended

    task = Classification([f"text {place}" for place in range(40)], ["a", "b"] * 20)
    vectors = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    with pytest.raises(Ended):
        task.watched_by(look).outcomes([vectors])
    assert len(folds) == 3
    assert task.outcomes([vectors]).shape == (40,)
