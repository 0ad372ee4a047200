"""What is left of a text in its vector."""

import numpy as np
import pytest

from service.evaluation.information import LEAST_TEXTS, measure, presence


@pytest.fixture
def ids():
    """Texts of tokens 2 to 31, each with a token 0 that all have and one of its own."""
    rng = np.random.default_rng(0)
    return [np.array([0, *rng.choice(np.arange(2, 32), 6, replace=False), 100 + place]) for place in range(400)]


def test_tokens_of_nearly_all_or_hardly_any_texts_are_left_out(ids):
    found = presence(ids)
    assert found.shape == (400, 30)
    assert (found.sum(axis=1) == 6).all()
    assert (np.diff(found.sum(axis=0)) <= 0).all()  # the commonest first


def test_words_that_are_in_the_vector_are_read_off_it(ids):
    present = presence(ids)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(30, 30)))[0]
    found = measure((present @ turn).astype(np.float32), present)
    assert found.words_recovered > 0.99
    assert found.chance < 0.4


def test_words_that_are_not_are_guessed(ids):
    present = presence(ids)
    vectors = np.random.default_rng(1).normal(size=(400, 64)).astype(np.float32)
    found = measure(vectors, present)
    assert found.words_recovered == pytest.approx(found.chance, abs=0.06)
    assert found.sameness == pytest.approx(0.0, abs=0.02)
    assert measure(vectors + 100, present).sameness > 0.99


def test_of_few_texts_nothing_is_said(ids):
    vectors = np.ones((LEAST_TEXTS - 1, 4), np.float32)
    assert measure(vectors, presence(ids)[: LEAST_TEXTS - 1]) is None
    assert measure(np.ones((400, 4), np.float32), presence([np.array([0])] * 400)) is None
