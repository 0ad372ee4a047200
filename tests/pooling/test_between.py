"""Strategies between the mean and the max, and by pieces: their limits, and what rounding must not do to them."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from pooling import KMax, LogSumExp, Max, Mean, Piecewise, masks
from tests.pooling.conftest import DIM


@st.composite
def drawn(draw):
    """States (3, time, 5) of some magnitude and a mask (3, time) in which every text has a token."""
    time, seed = draw(st.integers(1, 12)), draw(st.integers(0, 10**6))
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(3, time, 5, generator=generator) * 10.0 ** draw(st.integers(-6, 6))
    mask = torch.rand(3, time, generator=generator) < 0.7
    mask[:, draw(st.integers(0, time - 1))] = True
    return tokens, mask


@given(drawn())
def test_one_piece_and_one_value_are_the_max(states):
    expected = Max(5)(*states)
    assert torch.equal(Piecewise(5, n=1)(*states), expected)
    assert torch.equal(KMax(5, k=1)(*states), expected)


@given(drawn())
def test_all_values_and_one_piece_by_mean_are_the_mean(states):
    tokens, _ = states
    expected, within = Mean(5)(*states), 1e-6 * float(tokens.abs().max())
    assert_close(KMax(5, k=tokens.shape[1])(*states), expected, atol=within, rtol=0)
    assert_close(Piecewise(5, n=1, by="mean")(*states), expected, atol=within, rtol=0)


@given(drawn(), st.integers(1, 14))
def test_k_max_is_the_mean_of_the_k_largest(states, k):
    tokens, mask = states
    for text, counts, vector in zip(tokens, mask, KMax(5, k=k)(tokens, mask), strict=True):
        largest = text[counts].sort(0, descending=True).values[:k]
        assert_close(vector, largest.mean(0), atol=1e-6 * float(tokens.abs().max()), rtol=0)


@given(drawn(), st.integers(1, 6), st.sampled_from(["max", "mean"]))
def test_pieces_are_those_of_adaptive_pooling(states, n, by):
    tokens, mask = states
    pool = torch.nn.AdaptiveMaxPool1d(n) if by == "max" else torch.nn.AdaptiveAvgPool1d(n)
    for text, counts, vector in zip(tokens, mask, Piecewise(5, n=n, by=by)(tokens, mask), strict=True):
        expected = pool(text[counts].T[None])[0].T.flatten()
        assert_close(vector, expected, atol=1e-6 * float(tokens.abs().max()), rtol=0)


@given(drawn(), st.floats(0.001, 1000))
def test_log_sum_exp_is_as_in_double_precision_and_lies_between_mean_and_max(states, beta):
    tokens, mask = states
    vectors, counts = LogSumExp(5, beta=beta)(tokens, mask), mask.sum(1, keepdim=True)
    scaled = (tokens.double() * beta).masked_fill(~mask.unsqueeze(2), -torch.inf)
    expected = ((scaled.logsumexp(1) - counts.double().log()) / beta).float()
    rounding = 1e-6 * float(tokens.abs().max())
    assert_close(vectors, expected, atol=rounding, rtol=1e-6)
    assert (vectors >= Mean(5)(tokens, mask) - rounding).all()
    assert (vectors <= Max(5)(tokens, mask) + rounding).all()


def test_log_sum_exp_goes_from_the_mean_to_the_max_as_beta_grows(tokens, mask):
    mean, largest = Mean(DIM)(tokens, mask), Max(DIM)(tokens, mask)
    vectors = [LogSumExp(DIM, beta=beta)(tokens, mask) for beta in (0.001, 0.01, 0.1, 1, 10, 100, 1000)]
    assert_close(vectors[0], mean, atol=0.005, rtol=0)
    assert_close(vectors[-1], largest, atol=0.005, rtol=0)
    assert all((low <= high + 1e-6).all() for low, high in pairwise([mean, *vectors, largest]))


def test_weights_of_log_sum_exp_are_its_gradient(tokens, mask):
    pooler, leaf = LogSumExp(DIM, beta=2.5), tokens.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(pooler(leaf, mask).sum(), leaf)
    assert_close(gradient, pooler.weights(tokens, mask))


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("beta", [0.001, 1, 1000])
def test_log_sum_exp_neither_overflows_nor_vanishes(beta, scale):
    leaf = ((torch.rand(2, 9, DIM) + 0.5) * scale).requires_grad_()
    pooler, mask = LogSumExp(DIM, beta=beta), torch.ones(2, 9).bool()
    vectors = pooler(leaf, mask)
    assert ((vectors / scale > 0.5) & (vectors / scale < 1.5)).all()
    (gradient,) = torch.autograd.grad(vectors.sum(), leaf)
    assert_close(gradient.sum(1), torch.ones(2, DIM))
    assert_close(pooler.weights(leaf.detach(), mask).sum(1), torch.ones(2, DIM))


def test_log_sum_exp_of_thousands_of_tokens_of_which_one_is_large():
    tokens = torch.zeros(1, 8_192, 1)
    tokens[0, 5] = 30.0
    expected = 30 - torch.tensor(8_192.0).log()
    assert_close(LogSumExp(1)(tokens, torch.ones(1, 8_192).bool())[0], expected[None], atol=1e-5, rtol=0)


def test_a_pyramid_has_every_level_in_its_vector(tokens, mask):
    whole, halves = Max(DIM)(tokens, mask), Piecewise(DIM, n=2)(tokens, mask)
    assert torch.equal(torch.maximum(*halves.split(DIM, dim=1)), whole)
    assert masks.adaptive(mask, 2).any(2).all()
