"""Which tokens learn: the rules of each strategy."""

import math

import torch
from torch.testing import assert_close

from pooling import Max, Mean, build

DIM = 8


def gradient(pooler, tokens, mask):
    leaf = tokens.clone().requires_grad_()
    upstream = torch.randn(len(tokens), pooler.output_dim, generator=torch.Generator().manual_seed(2))
    pooler(leaf, mask).backward(upstream)
    return leaf.grad, upstream


def test_masked_tokens_get_exactly_none(strategy, tokens, mask):
    for garbage in (0.0, 1e30, math.nan, math.inf):
        tokens[~mask] = garbage
        grad, _ = gradient(strategy.fitted(), tokens, mask)
        assert (grad[~mask] == 0).all()
        assert grad.isfinite().all()


def test_every_counting_token_gets_some(reaching_all, tokens, mask):
    grad, _ = gradient(reaching_all.fitted(), tokens, mask)
    assert (grad[mask].abs().amax(1) > 0).all()


def test_mean_gives_each_an_equal_part(tokens, mask):
    grad, upstream = gradient(Mean(DIM), tokens, mask)
    assert_close(grad, (mask / mask.sum(1, keepdim=True)).unsqueeze(2) * upstream.unsqueeze(1))


def test_max_gives_all_to_the_winner_of_each_dimension(tokens, mask):
    pooler = Max(DIM)
    grad, upstream = gradient(pooler, tokens, mask)
    assert torch.equal(grad, pooler.weights(tokens, mask) * upstream.unsqueeze(1))
    assert ((grad != 0).sum(1) == 1).all()


def test_clamped_gem_passes_none_to_negative_states(tokens, mask):
    grad, _ = gradient(build("gem(negative=clamp)", DIM), tokens, mask)
    assert torch.equal(grad != 0, (tokens > 0) & mask.unsqueeze(2))


def test_gradients_are_those_of_the_function(strategy, tokens, mask):
    pooler = strategy.fitted().double()
    leaf = tokens[1:3].double().requires_grad_()
    assert torch.autograd.gradcheck(lambda states: pooler(states, mask[1:3]), leaf, fast_mode=True)


def test_every_parameter_learns(with_parameters, tokens, mask):
    pooler = with_parameters.fitted()
    upstream = torch.randn(len(tokens), pooler.output_dim, generator=torch.Generator().manual_seed(3))
    pooler(tokens, mask).backward(upstream)
    for name, parameter in pooler.named_parameters():
        assert parameter.grad.isfinite().all()
        assert (parameter.grad != 0).any(), name


def test_an_untrained_strategy_is_already_able_to_learn(tokens, mask):
    for spec in (
        "attention",
        "attention(scores=descriptors)",
        "multihead_attention(split_heads=True)",
        "gem",
    ):
        pooler = build(spec, DIM)
        pooler(tokens, mask).sum().backward()
        assert all((parameter.grad != 0).any() for parameter in pooler.parameters())
