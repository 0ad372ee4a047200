"""Correlations are those of scipy, cosines those of sentence-transformers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr
from sentence_transformers import SimilarityFunction
from sentence_transformers.util import pairwise_cos_sim

from pooling.tasks import Similarity
from pooling.tasks.comparison import COMPARISONS
from pooling.tasks.similarity import cosines, pearson, spearman


@given(st.lists(st.tuples(st.integers(-4, 5), st.integers(-4, 5)), min_size=2, max_size=30))
def test_correlations_are_those_of_scipy(pairs):
    predicted, scores = np.array(pairs, dtype=np.float64).T
    if len(set(predicted)) == 1 or len(set(scores)) == 1:
        assert spearman(predicted, scores) == pearson(predicted, scores) == 0.0
        return
    assert spearman(predicted, scores) == pytest.approx(spearmanr(predicted, scores).statistic, abs=1e-12)
    assert pearson(predicted, scores) == pytest.approx(pearsonr(predicted, scores).statistic, abs=1e-12)


def test_several_predictions_at_once():
    scores = np.array([0.0, 1.0, 2.0, 3.0])
    several = np.stack([scores, -scores, np.zeros(4), np.array([0.0, 1.0, 3.0, 2.0])])
    assert spearman(several, scores) == pytest.approx([1.0, -1.0, 0.0, 0.8])


def test_cosines_are_those_of_sentence_transformers_to_the_last_bit():
    first, second = np.random.default_rng(0).normal(size=(2, 50, 12)).astype(np.float32)
    first[0] = 0.0
    assert np.array_equal(cosines(first, second), pairwise_cos_sim(first, second).numpy().astype(np.float64))


@pytest.mark.parametrize("name", COMPARISONS)
def test_pairs_are_compared_as_declared(name):
    texts = [f"text {number}" for number in range(40)]
    vectors = np.random.default_rng(1).normal(size=(40, 6)).astype(np.float32)
    pairs = Similarity(texts[:20], texts[20:], list(range(20))).compared_by(name)
    wanted = SimilarityFunction.to_similarity_pairwise_fn(name)(vectors[:20], vectors[20:]).numpy()
    np.testing.assert_allclose(pairs.outcomes([vectors]), wanted, rtol=1e-6)
    perturbed = pairs.perturbed_outcomes(np.arange(20), [vectors, vectors[::-1]], [vectors])
    np.testing.assert_allclose(perturbed, [wanted, wanted[::-1]], rtol=1e-6)
