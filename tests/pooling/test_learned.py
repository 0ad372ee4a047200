"""The strategies with parameters: where they start, what their options do, where their limits are."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from pooling import Attention, Gated, GeM, Max, Mean, MultiHeadAttention, PoolingError, build

DIM = 8


@pytest.mark.parametrize(
    "spec",
    [
        "attention",
        "attention(scores=descriptors)",
        "gated",
        "multihead_attention(combine=mean)",
        "multihead_attention(split_heads=True)",
        "multihead_attention(split_heads=True, projection=True)",
        "attention > mean",
        "gated > mean",
    ],
)
def test_untrained_is_the_mean(spec, tokens, mask):
    assert_close(build(spec, DIM)(tokens, mask), Mean(DIM)(tokens, mask))


def test_untrained_heads_are_means_side_by_side(tokens, mask):
    mean = Mean(DIM)(tokens, mask)
    assert_close(MultiHeadAttention(DIM, heads=3)(tokens, mask), torch.cat([mean] * 3, dim=1))
    assert_close(MultiHeadAttention(DIM, heads=3, projection=True)(tokens, mask), torch.cat([mean] * 3, dim=1))


def test_each_split_head_is_an_attention_over_its_slice(tokens, mask):
    heads = MultiHeadAttention(DIM, heads=2, split_heads=True)
    queries = torch.randn(2, 4)
    heads.load_state_dict({"queries": queries})
    attention = Attention(4)
    for head, piece in enumerate((slice(0, 4), slice(4, 8))):
        attention.load_state_dict({"query": queries[head]})
        assert_close(heads(tokens, mask)[:, piece], attention(tokens[..., piece], mask))


def test_each_whole_head_is_an_attention(tokens, mask):
    heads = MultiHeadAttention(DIM, heads=2)
    queries = torch.randn(2, DIM)
    heads.load_state_dict({"queries": queries})
    for head in range(2):
        attention = Attention(DIM)
        attention.load_state_dict({"query": queries[head]})
        assert_close(heads(tokens, mask)[:, DIM * head : DIM * (head + 1)], attention(tokens, mask))


def test_projection_multiplies_the_vector(tokens, mask):
    plain, projected = MultiHeadAttention(DIM, heads=2), MultiHeadAttention(DIM, heads=2, projection=True)
    queries, output = torch.randn(2, DIM), torch.randn(16, 16)
    plain.load_state_dict({"queries": queries})
    projected.load_state_dict({"queries": queries, "output": output})
    assert_close(projected(tokens, mask), plain(tokens, mask) @ output)


def test_descriptors_see_the_max_and_the_mean_of_a_token(tokens, mask):
    attention = Attention(DIM, scores="descriptors")
    attention.load_state_dict({"query": torch.tensor([2.0, -1.0])})
    scores = 2 * tokens.amax(2) - tokens.mean(2)
    assert_close(attention.weights(tokens, mask), scores.masked_fill(~mask, -torch.inf).softmax(1))


def test_gates_are_sigmoids(tokens, mask):
    gated = Gated(DIM)
    weight, bias = torch.randn(DIM), torch.tensor(0.3)
    gated.load_state_dict({"weight": weight, "bias": bias})
    gates = torch.sigmoid(tokens @ weight + bias) * mask
    assert_close(gated.weights(tokens, mask), gates / gates.sum(1, keepdim=True))


def test_gates_that_are_all_but_closed_still_make_a_vector(tokens, mask):
    gated = Gated(DIM)
    gated.load_state_dict({"weight": torch.zeros(DIM), "bias": torch.tensor(-1000.0)})
    assert_close(gated(tokens, mask), Mean(DIM)(tokens, mask))


@pytest.mark.parametrize("combine", ["concat", "mean"])
def test_whole_heads_part_only_once_separated(combine, tokens, mask):
    def queries_after_a_step(separate: bool) -> torch.Tensor:
        heads = MultiHeadAttention(DIM, heads=2, combine=combine)
        if separate:
            heads.separate_heads(torch.Generator().manual_seed(0))
        vectors = heads(tokens, mask)
        (vectors @ vectors.T).sum().backward()
        return (heads.queries - heads.queries.grad).detach()

    equal, parted = queries_after_a_step(False), queries_after_a_step(True)
    assert_close(equal[0], equal[1])
    assert not torch.allclose(parted[0], parted[1], atol=1e-3)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"heads": 0}, "heads=0"),
        ({"heads": 2.0}, "whole number"),
        ({"heads": True}, "whole number"),
        ({"heads": 10**9}, "64"),
        ({"combine": "sum"}, "'concat', 'mean'"),
        ({"split_heads": 1}, "True, False"),
        ({"heads": 3, "split_heads": True}, "divide"),
        ({"split_heads": True, "combine": "mean"}, "leave it out"),
    ],
)
def test_impossible_heads_are_refused(options, says):
    with pytest.raises(PoolingError, match=says):
        MultiHeadAttention(DIM, **options)


def test_a_projection_too_large_to_hold_is_refused():
    with pytest.raises(PoolingError, match="8192"):
        MultiHeadAttention(4096, heads=64, projection=True)


@given(seed=st.integers(0, 10**6), magnitude=st.integers(-12, 12))
def test_gem_with_p_1_is_the_mean_to_the_last_bit(seed, magnitude):
    torch.manual_seed(seed)
    tokens = torch.randn(3, 7, 5) * 10.0**magnitude
    tokens[0, 2] = 0.0
    mask = torch.rand(3, 7) < 0.7
    mask[:, 3] = True
    for per_dim in (False, True):
        assert torch.equal(GeM(5, p=1, per_dim=per_dim)(tokens, mask), Mean(5)(tokens, mask))


@pytest.mark.parametrize("negative", ["signed", "clamp"])
@pytest.mark.parametrize("p", [0.5, 1.0, 3.0, 20.0])
def test_gem_of_positive_states_is_the_power_mean(p, negative, tokens):
    positive = tokens.abs() + 0.1
    expected = positive.double().pow(p).mean(1).pow(1 / p).float()
    assert_close(GeM(DIM, p=p, negative=negative)(positive, torch.ones(4, 6).bool()), expected)


def test_gem_signed_keeps_signs_and_clamp_loses_them(tokens, mask):
    signed, clamped = GeM(DIM), GeM(DIM, negative="clamp")
    assert_close(signed(-tokens, mask), -signed(tokens, mask))
    powers = tokens.sign() * tokens.abs() ** 3 * mask.unsqueeze(2)
    mean = powers.sum(1) / mask.sum(1, keepdim=True)
    assert_close(signed(tokens, mask), mean.sign() * mean.abs() ** (1 / 3))
    assert_close(clamped(tokens, mask), clamped(tokens.clamp(min=1e-6), mask))
    assert_close(clamped(-tokens.abs(), mask), torch.full((4, DIM), 1e-6))


def test_gem_lies_between_mean_and_max_and_rises_with_p(tokens, mask):
    positive = tokens.abs() + 0.1
    vectors = [GeM(DIM, p=p)(positive, mask) for p in (1, 2, 4, 8, 16, 32, 64, 100)]
    vectors.append(Max(DIM)(positive, mask))
    assert all((lower <= higher + 1e-6).all() for lower, higher in pairwise(vectors))
    assert_close(vectors[-2], vectors[-1], rtol=0.02, atol=0)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("p", [0.01, 0.5, 10.0, 100.0])
def test_gem_neither_overflows_nor_vanishes(p, scale):
    tokens = (torch.rand(2, 9, DIM) + 0.5) * scale
    vectors = GeM(DIM, p=p)(tokens, torch.ones(2, 9).bool()) / scale
    assert (vectors > 0.5).all()
    assert (vectors < 1.5).all()


@pytest.mark.parametrize("p", [0.01, 0.5, 1.0, 3.0, 100.0])
def test_gem_has_finite_gradients_at_zero_and_where_signs_cancel(p):
    tokens = torch.tensor([[[0.0, 1.0, 0.0], [0.0, -1.0, 2.0]]], requires_grad=True)
    gem = GeM(3, p=p)
    gem(tokens, torch.ones(1, 2).bool()).sum().backward()
    assert tokens.grad.isfinite().all()
    assert gem.exponent.grad.isfinite()


def test_gem_gradients_survive_a_large_p(tokens, mask):
    def gradient(dtype: torch.dtype) -> torch.Tensor:
        leaf = (tokens.abs() + 0.1).to(dtype).requires_grad_()
        GeM(DIM, p=100)(leaf, mask).sum().backward()
        return leaf.grad

    assert_close(gradient(torch.float32), gradient(torch.float64).float(), rtol=1e-3, atol=1e-6)


def test_gem_shares_are_those_of_the_power_sum(tokens, mask):
    powers = tokens.abs() ** 3 * mask.unsqueeze(2)
    assert_close(GeM(DIM).weights(tokens, mask), powers / powers.sum(1, keepdim=True))


def test_gem_of_nothing_but_zeros_shares_alike(mask):
    zeros = torch.zeros(4, 6, DIM)
    assert torch.equal(GeM(DIM)(zeros, mask), torch.zeros(4, DIM))
    weights = GeM(DIM).weights(zeros, mask)
    assert_close(weights, Mean(DIM).weights(zeros, mask).unsqueeze(2).expand(-1, -1, DIM))


@pytest.mark.parametrize("p", [0, -1, 101, float("nan"), float("inf"), "3", True, None])
def test_gem_refuses_other_exponents(p):
    with pytest.raises(PoolingError, match="p="):
        GeM(DIM, p=p)
