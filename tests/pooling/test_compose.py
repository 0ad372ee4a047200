"""Concatenations and sequences."""

import warnings

import pytest
import torch
from torch.testing import assert_close

from pooling import (
    Adaptive,
    Attention,
    Cls,
    ComposeWarning,
    Concatenation,
    Max,
    Mean,
    PoolingError,
    Sequence,
    Windows,
    build,
    masks,
)

DIM = 8


def test_a_concatenation_is_its_parts_side_by_side(tokens, mask):
    whole = Concatenation([Mean(DIM), Max(DIM)])
    assert whole.output_dim == 2 * DIM
    assert torch.equal(whole(tokens, mask), torch.cat([Mean(DIM)(tokens, mask), Max(DIM)(tokens, mask)], dim=1))
    weights = whole.weights(tokens, mask)
    assert torch.equal(weights[..., 0], Mean(DIM).weights(tokens, mask))
    assert torch.equal(weights[..., DIM:], Max(DIM).weights(tokens, mask))


def test_order_within_a_concatenation_changes_no_part(tokens, mask):
    one, other = build("max + mean", DIM)(tokens, mask), build("mean + max", DIM)(tokens, mask)
    assert torch.equal(one, other.roll(DIM, 1))


def test_nested_concatenations_and_sequences_are_taken_apart():
    nested = Concatenation([Concatenation([Mean(DIM), Max(DIM)]), Cls(DIM)])
    assert nested.spec == "mean + max + cls"
    inner = Sequence([Attention(DIM), Mean(DIM)])
    assert Sequence([Windows(DIM, size=2, stride=2), inner]).spec == "window(size=2, stride=2) > attention > mean"


@pytest.mark.parametrize("name", ["attention", "gated", "attention(scores=descriptors)"])
def test_a_mean_behind_an_attention_is_the_attention(name, tokens, mask):
    alone, sequence = build(name, DIM), build(f"{name} > mean", DIM)
    for parameter, other in zip(alone.parameters(), sequence.parameters(), strict=True):
        with torch.no_grad():
            parameter.normal_()
            other.copy_(parameter)
    assert_close(sequence(tokens, mask), alone(tokens, mask))
    assert_close(sequence.weights(tokens, mask), alone.weights(tokens, mask))


def test_a_stage_alone_gives_tokens_and_mask(tokens, mask):
    windows, counts = Windows(DIM, size=2, stride=2, by="max").transform(tokens, mask)
    assert torch.equal(counts, masks.windows(mask, 2, 2).any(2))
    assert torch.equal(windows[1, 0], tokens[1, 2:4].amax(0))
    assert (windows[~counts] == 0).all()
    segments, counts = Adaptive(DIM, n=5).transform(tokens, mask)
    assert counts.all()
    assert segments.shape == (4, 5, DIM)


def test_max_of_max_windows_is_the_max(tokens, mask):
    assert torch.equal(build("window(size=2, stride=2, by=max) > max", DIM)(tokens, mask), Max(DIM)(tokens, mask))


@pytest.mark.parametrize(
    ("spec", "soft", "hard"),
    [
        ("attention > max", "attention", "max"),
        ("gated > mean + max", "gated", "max"),
        ("attention > kmax(k=2)", "attention", "kmax"),
        ("gated > piecewise(n=2)", "gated", "piecewise"),
        ("gated > mean + (adaptive(n=2, by=max) > mean)", "gated", "adaptive"),
        ("attention(scores=descriptors) > window(size=2, stride=2, by=max) > mean", "attention", "window"),
    ],
)
def test_max_straight_after_a_weighting_is_warned_of(spec, soft, hard):
    with pytest.warns(ComposeWarning, match=rf"'{hard}.*' straight after '{soft}.*either alone"):
        build(spec, DIM)


@pytest.mark.parametrize(
    "spec",
    [
        *("attention > mean", "attention + max", "window(size=2, stride=2, by=max) > attention", "gated > gem"),
        *("attention > piecewise(n=2, by=mean)", "gated > logsumexp"),
    ],
)
def test_other_sequences_are_not(spec):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build(spec, DIM)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Concatenation([]), "0 parts"),
        (lambda: Concatenation([Mean(DIM)] * 33), "33 parts"),
        (lambda: Concatenation([Mean(8), Mean(4)]), r"\[4, 8\]"),
        (lambda: Concatenation([Mean(8), Windows(8, 2, 2)]), "cannot be concatenated"),
        (lambda: Sequence([]), "must end in"),
        (lambda: Sequence([Attention(8), Windows(8, 2, 2)]), "must end in"),
        (lambda: Sequence([Mean(8), Max(8)]), "nothing can come after"),
        (lambda: Sequence([Attention(4), Mean(8)]), r"\[4, 8\]"),
        (lambda: Windows(8, 0, 1), "size=0"),
        (lambda: Windows(8, 1, 1, by="min"), "'mean', 'max'"),
        (lambda: Adaptive(8, 10**6), "4096"),
        (lambda: Mean(0), "dim=0"),
    ],
)
def test_what_cannot_be_composed_is_refused(make, says):
    with pytest.raises(PoolingError, match=says):
        make()
