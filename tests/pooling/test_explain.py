"""Explanations are the gradient or the definition of each strategy, add up, and know nothing of padding."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd.functional import jacobian
from torch.testing import assert_close

from pooling import Max, Pooler, available, build, explain, stages
from pooling.weights import expand

from .conftest import STRATEGIES

DIM = 8
FREE = [s for s in STRATEGIES if s.linear and not any(word in s.spec for word in ("attention", "gated"))]
"""Linear, and with weights that do not depend on the states, or under max only on which of them is largest."""

several = settings(max_examples=settings.default.max_examples // 8)
texts = st.tuples(st.integers(1, 7), st.integers(0, 9999))


def states(drawn: tuple[int, int]) -> torch.Tensor:
    """(1, time, dim) in double precision."""
    length, seed = drawn
    return torch.randn(1, length, DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def everything(tokens: torch.Tensor) -> torch.Tensor:
    return torch.ones(tokens.shape[:2], dtype=torch.bool)


def fitted(spec: str, seed: int) -> Pooler:
    return next(s for s in STRATEGIES if s.spec == spec).fitted(seed).double()


def test_every_strategy_of_the_registry_is_among_those_tested():
    words = set().union(*(s.spec.replace("(", " ").replace(")", " ").split() for s in STRATEGIES))
    assert {*available(), *stages()} <= words


@several
@given(data=st.data())
def test_shares_add_up_to_one_whatever_the_padding(strategy, data):
    """Alone, and with padding of any length and content on both sides, a text has the same shares."""
    pooler, alone = strategy.fitted(data.draw(st.integers(0, 99))).double(), states(data.draw(texts))
    left, right = data.draw(st.integers(0, 3)), data.draw(st.integers(0, 3))
    length = alone.shape[1]
    padded = torch.full((1, left + length + right, DIM), data.draw(st.sampled_from([0.0, -1e30, math.nan, math.inf])))
    padded = padded.double()
    padded[:, left : left + length] = alone
    mask = torch.zeros(padded.shape[:2], dtype=torch.bool)
    mask[:, left : left + length] = True
    found = explain.shares(pooler, padded, mask)
    assert found.shape == mask.shape
    assert (found[~mask] == 0).all() and (found >= 0).all()
    assert found.sum().item() == pytest.approx(1)
    assert_close(found[mask], explain.shares(pooler, alone, everything(alone))[0])
    terms = pooler.terms(padded, mask)
    assert (terms[~mask] == 0).all()
    assert_close(terms[mask], pooler.terms(alone, everything(alone))[0])


@several
@given(drawn=texts, seed=st.integers(0, 99))
def test_terms_add_up_to_the_vector(strategy, drawn, seed):
    pooler, tokens = strategy.fitted(seed).double(), states(drawn)
    terms = pooler.terms(tokens, everything(tokens))
    assert terms.shape == (1, tokens.shape[1], pooler.output_dim)
    assert_close(terms.sum(1), pooler(tokens, everything(tokens)))


def test_a_strategy_says_whether_it_is_a_weighted_sum(strategy):
    assert strategy.fitted().linear == strategy.linear


@several
@given(drawn=texts, seed=st.integers(0, 99))
def test_weighted_sums_give_weight_times_state(linear, drawn, seed):
    """The definition, for attention and gated too: the vector is the sum of these."""
    pooler, tokens = linear.fitted(seed).double(), states(drawn)
    weights = expand(pooler.weights(tokens, everything(tokens)), pooler.output_dim)
    products = weights * tokens.repeat(1, 1, pooler.output_dim // DIM)
    assert_close(pooler.terms(tokens, everything(tokens)), products)
    assert_close(products.sum(1), pooler(tokens, everything(tokens)))


@pytest.mark.parametrize("spec", [s.spec for s in FREE])
@several
@given(drawn=texts)
def test_shares_are_the_gradient(spec, drawn):
    """d vector_j / d state_tj is the weight; under max it is one for the winner, which the gradient is routed to."""
    pooler, tokens = build(spec, DIM).double(), states(drawn)
    mask = everything(tokens)
    slopes = jacobian(lambda given: pooler(given, mask), tokens)[0, :, 0]  # (output_dim, time, dim)
    weights = expand(pooler.weights(tokens, mask), pooler.output_dim)[0]
    expected = torch.zeros_like(slopes)
    outputs = torch.arange(pooler.output_dim)
    expected[outputs, :, outputs % DIM] = weights.T
    assert_close(slopes, expected)
    of_each = slopes.sum(2) / slopes.sum((1, 2)).unsqueeze(1)
    assert_close(explain.shares(pooler, tokens, mask)[0], of_each.mean(0))


def softmax(scores: list[float]) -> list[float]:
    sizes = [math.exp(score - max(scores)) for score in scores]
    return [size / sum(sizes) for size in sizes]


def heads(pooler, h) -> list[list[float]]:
    """The weights of each head, over whole states or each over its slice."""
    size = DIM // pooler.heads if pooler.split_heads else DIM
    slices = [h[:, k * size : (k + 1) * size] if pooler.split_heads else h for k in range(pooler.heads)]
    return [
        softmax([float(state @ query) / math.sqrt(size) for state in part])
        for part, query in zip(slices, pooler.queries, strict=True)
    ]


def gate(pooler, state) -> float:
    return 1 / (1 + math.exp(-float(state @ pooler.weight + pooler.bias)))


def powers(pooler, h) -> torch.Tensor:
    positive = h.abs() if pooler.negative == "signed" else h.clamp(min=1e-6)
    return positive**pooler.exponent


DEFINITIONS = {
    "attention": lambda p, h: softmax([float(state @ p.query) / math.sqrt(DIM) for state in h]),
    "attention(scores=descriptors)": lambda p, h: softmax(
        [float(s.max() * p.query[0] + s.mean() * p.query[1]) for s in h]
    ),
    "gated": lambda p, h: [gate(p, state) / sum(gate(p, other) for other in h) for state in h],
    **dict.fromkeys(
        [s.spec for s in STRATEGIES if s.spec.startswith("multihead")],
        lambda p, h: [sum(of_token) / p.heads for of_token in zip(*heads(p, h), strict=True)],
    ),
    **dict.fromkeys(
        [s.spec for s in STRATEGIES if s.spec.startswith("gem")],
        lambda p, h: (powers(p, h) / powers(p, h).sum(0)).mean(1).tolist(),
    ),
}


@pytest.mark.parametrize("spec", DEFINITIONS)
@several
@given(drawn=texts, seed=st.integers(0, 99))
def test_shares_of_learned_strategies_are_their_definition(spec, drawn, seed):
    pooler, tokens = fitted(spec, seed), states(drawn)
    with torch.no_grad():
        expected = DEFINITIONS[spec](pooler, tokens[0])
        found = explain.shares(pooler, tokens, everything(tokens))[0]
    assert_close(found, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("spec", [spec for spec in DEFINITIONS if spec.startswith("multihead")])
@several
@given(drawn=texts, seed=st.integers(0, 99))
def test_terms_of_several_heads_use_each_head_s_own_weights(spec, drawn, seed):
    pooler, tokens = fitted(spec, seed), states(drawn)
    with torch.no_grad():
        weights, whole = heads(pooler, tokens[0]), tokens[0]
        for place, state in enumerate(whole):
            slices = state.chunk(pooler.heads) if pooler.split_heads else [state] * pooler.heads
            given_by = [head[place] * part for head, part in zip(weights, slices, strict=True)]
            part = torch.stack(given_by).mean(0) if pooler.combine == "mean" else torch.cat(given_by)
            part = part @ pooler.output if pooler.projection else part
            assert_close(pooler.terms(tokens, everything(tokens))[0, place], part)


@several
@given(drawn=texts, seed=st.integers(0, 99))
def test_gem_divides_its_vector_by_the_power_sum(drawn, seed):
    pooler, tokens = fitted("gem(p=3.0)", seed), states(drawn)
    with torch.no_grad():
        share = powers(pooler, tokens) / powers(pooler, tokens).sum(1, keepdim=True)
        assert not pooler.exact
        assert_close(pooler.terms(tokens, everything(tokens)), share * pooler(tokens, everything(tokens))[:, None])


def test_a_concatenation_s_share_is_the_mean_of_its_parts_shares(tokens, mask):
    both, alone = build("mean + max", DIM), Max(DIM)
    expected = (mask / mask.sum(1, keepdim=True) + explain.shares(alone, tokens, mask)) / 2
    assert_close(explain.shares(both, tokens, mask), expected)
    won = alone.weights(tokens, mask).sum(2) / DIM
    assert torch.equal(explain.shares(alone, tokens, mask), won)


@several
@given(one=texts, other=texts, seed=st.integers(0, 99))
def test_contributions_add_up_to_the_cosine(strategy, one, other, seed):
    """In float32, as models are served."""
    pooler, first, second = strategy.fitted(seed), states(one).float(), states(other).float()
    u, v = pooler(first, everything(first)), pooler(second, everything(second))
    matrix = explain.similarity(pooler.terms(first, everything(first)), pooler.terms(second, everything(second)))
    assert matrix.shape == (1, first.shape[1], second.shape[1])
    assert matrix.sum().item() == pytest.approx(torch.cosine_similarity(u, v).item(), abs=1e-5)


def test_contributions_of_a_mean_are_products_of_states():
    first, second = states((3, 1)), states((4, 2))
    mean = build("mean", DIM).double()
    matrix = explain.similarity(mean.terms(first, everything(first)), mean.terms(second, everything(second)))
    lengths = first.mean(1).norm() * second.mean(1).norm()
    for i in range(3):
        for j in range(4):
            assert_close(matrix[0, i, j], first[0, i] @ second[0, j] / 12 / lengths)


def test_a_vector_of_zeros_has_no_similarity():
    nothing = torch.zeros(1, 2, DIM)
    assert torch.equal(explain.similarity(nothing, torch.ones(1, 3, DIM)), torch.zeros(1, 2, 3))


def test_the_strongest_are_the_largest_either_way():
    matrix = torch.tensor([[0.1, -0.5, 0.0], [0.4, 0.0, 0.2]])
    assert explain.strongest(matrix, 3) == [(0, 1), (1, 0), (1, 2)]
    assert explain.strongest(matrix, 10) == [(0, 1), (1, 0), (1, 2), (0, 0)]
    assert explain.strongest(torch.zeros(2, 2), 5) == []


class Difference(Pooler):
    """A strategy of another package: not a mean, and without a word about its terms."""

    name, summary, good_for, weak_at = "difference", "first minus second", "a test", "all else"

    def _pool(self, tokens, mask):
        return tokens[:, 0] - tokens[:, 1]

    def _weights(self, tokens, mask):
        weights = torch.zeros_like(tokens[..., 0])
        weights[:, 0], weights[:, 1] = 1.0, -1.0
        return weights if tokens[..., 0].any() else torch.zeros_like(weights)


def test_a_foreign_strategy_adds_up_too():
    pooler, tokens = Difference(DIM), states((3, 1))
    mask = torch.tensor([[True, True, True]])
    assert explain.shares(pooler, tokens, mask).tolist() == [[0.5, 0.5, 0.0]]
    assert_close(pooler.terms(tokens, mask).sum(1), pooler(tokens, mask))
    alike = explain.shares(pooler, torch.zeros_like(tokens), torch.tensor([[True, True, False]]))
    assert alike.tolist() == [[0.5, 0.5, 0.0]]
