"""A split scores what evaluation scores, ties included."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from pooling import build
from pooling.tasks import Similarity
from pooling.training import Split, States

from .conftest import write


def split(task, folder, vectors):
    """A split whose texts have one token each, so that any pooling gives that."""
    return Split(task, States.open([write(folder, [vector[None].astype(np.float32) for vector in vectors])]))


def test_pairs_are_scored_by_spearman(tmp_path):
    pairs = Similarity(("a", "b", "a"), ("b", "c", "c"), (0.0, 1.0, 2.0))
    dev = split(pairs, tmp_path / "states", np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
    mean = build("mean", 2)
    outcomes = dev.outcomes(mean)
    assert outcomes == pytest.approx([0, 0.5**0.5, 0.5**0.5])
    assert dev.score(mean) == pytest.approx(100 * spearmanr(outcomes, [0, 1, 2]).statistic)
    assert dev.scores(outcomes[None], np.array([0, 1, 1])) == pytest.approx([100])


def test_all_documents_compete(retrieval, tmp_path):
    # One, two, three, four by cosine to the queries (1, 0): the ranking is one, four, three, two.
    vectors = np.array([[0.9, 0.1], [0.2, 0.9], [0.3, 0.9], [0.8, 0.2], [1.0, 0.0], [1.0, 0.0]])
    dev = split(retrieval, tmp_path / "states", vectors)
    outcomes = dev.outcomes(build("mean", 2))
    gains = 1 / np.log2([2, 3, 4, 5])
    assert outcomes[0, 0] == pytest.approx((2 * gains[0] + gains[3]) / (2 * gains[0] + gains[1]))
    assert outcomes[1, 0] == pytest.approx((gains[2] + gains[3]) / (gains[0] + gains[1]))
    assert dev.score(build("mean", 2)) == pytest.approx(100 * outcomes[:, 0].mean())
    assert dev.scores(outcomes[None], np.array([1, 1])) == pytest.approx([100 * outcomes[1, 0]])


def test_positive_pairs_find_their_positives(positives, tmp_path):
    dev = split(positives(3), tmp_path / "states", np.tile(np.eye(3), (2, 1)))
    assert dev.score(build("mean", 3)) == 100


@pytest.mark.parametrize("kind", ["pairs", "retrieval"])
def test_where_ties_decide_it_is_the_score_of_the_task_itself(kind, positives, tmp_path):
    rng = np.random.default_rng(0)
    pairs = Similarity([f"a {n}" for n in range(60)], [f"b {n}" for n in range(60)], rng.integers(0, 3, 60))
    task = pairs if kind == "pairs" else positives(60)
    sizes = [len(part.texts) for part in task.parts]
    vectors = rng.integers(0, 2, (sum(sizes), 5)).astype(np.float32)  # few different ones, so many equal cosines
    dev, mean = split(task, tmp_path / "states", vectors), build("mean", 5)
    outcomes = task.outcomes(np.split(vectors, np.cumsum(sizes)[:-1]))
    [scores] = task.score(outcomes[None], np.arange(task.size))
    assert np.array_equal(dev.outcomes(mean), outcomes)
    assert 0 < dev.score(mean) == 100 * scores[0] < 100
