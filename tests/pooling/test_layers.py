"""Which layers are pooled: what a spec names, and the mean of their states by hand."""

from __future__ import annotations

import re

import pytest
import torch

from pooling import PoolingError
from pooling.layers import LAST, Layers, NoLayersError, Stack, build, weighted

STATES = {0: torch.tensor([[[1.0, 8.0]]]), 1: torch.tensor([[[2.0, 4.0]]]), 2: torch.tensor([[[6.0, -2.0]]])}


@pytest.mark.parametrize(
    ("spec", "used", "mixed"),
    [
        ({"use": [0]}, (0,), [1.0, 8.0]),
        ({"use": ["first"]}, (1,), [2.0, 4.0]),
        ({"use": ["first", "last"], "by": "mean"}, (1, 2), [4.0, 1.0]),
        ({"use": [2, 0]}, (0, 2), [3.5, 3.0]),
        ({"use": [0, 1, 2], "by": "mean"}, (0, 1, 2), [3.0, 10 / 3]),
        ({"last": 2, "by": "mean"}, (1, 2), [4.0, 1.0]),
    ],
)
def test_worked_numbers(spec, used, mixed):
    layers = build(spec, depth=2)
    assert layers.used == used
    torch.testing.assert_close(layers(STATES), torch.tensor([[mixed]]))


@pytest.mark.parametrize("spec", ["last", {"use": ["last"]}, {"use": [2]}, {"last": 1}])
def test_the_last_layer_is_one_whatever_it_is_called(spec):
    assert build(spec, depth=2) == LAST
    assert LAST.spec == "last"


@pytest.mark.parametrize("spec", [{"use": ["first", "last"]}, {"use": [2, 1], "by": "mean"}, {"last": 2}])
def test_equal_layers_have_one_canonical_form_that_makes_them_again(spec):
    layers = build(spec, depth=2)
    assert layers.spec == {"use": [1, 2], "by": "mean"}
    assert build(layers.spec, depth=2) == layers


def test_weights_are_divided_by_their_sum():
    layers = weighted({1: 3.0, 2: 1.0}, depth=2)
    torch.testing.assert_close(layers(STATES), torch.tensor([[[3.0, 2.5]]]))
    assert layers.spec == {"use": [1, 2], "weights": [0.75, 0.25]}
    assert weighted({1: 2.0, 2: 2.0}, depth=2) == build({"last": 2}, depth=2)
    assert weighted({0: 0.0, 2: 5.0}, depth=2) == LAST
    with pytest.raises(PoolingError, match="add up to 0"):
        weighted({0: 1.0, 2: -1.0}, depth=2)


def test_half_precision_is_mixed_in_float32():
    halves = {layer: torch.full((1, 1, 1), 1 + layer * 2.0**-7, dtype=torch.bfloat16) for layer in (0, 1)}
    mixed = build({"use": [0, 1]}, depth=2)(halves)
    assert mixed.dtype == torch.float32
    assert mixed.item() == 1 + 2.0**-8


def test_states_side_by_side():
    stack = Stack((0, 2))
    stacked = stack(STATES)
    assert stacked.shape == (1, 1, 2, 2)
    found = stack.split(stacked)
    assert found.keys() == {0, 2} and all(torch.equal(found[layer], STATES[layer]) for layer in found)
    assert Stack((1,)).split(Stack((1,))(STATES))[1].data_ptr() == STATES[1].data_ptr()


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("first", "names no layers; give last, {use: [first, last], by: mean}"),
        ("", "names no layers"),
        (3, "names no layers"),
        (None, "names no layers"),
        ([1, 2], "names no layers"),
        ({}, "names no layers"),
        ({"by": "mean"}, "names no layers"),
        ({"use": [1], "last": 2}, "'last' does not go with 'use'"),
        ({"use": [1], "weights": [1]}, "give declared"),
        ({"use": []}, "use: [] lists no layers"),
        ({"use": "first"}, "use: 'first' lists no layers"),
        ({"use": 2}, "use: 2 lists no layers"),
        ({"use": {"first": 1}}, "lists no layers"),
        ({"use": [-1]}, "there is no layer -1; there are 0, the embeddings, to 2"),
        ({"use": [3]}, "there is no layer 3"),
        ({"use": [10**30]}, "there is no layer 1000000"),
        ({"use": [True]}, "True is no layer; give a whole number, first or last"),
        ({"use": [1.0]}, "1.0 is no layer"),
        ({"use": ["second"]}, "'second' is no layer"),
        ({"use": [[1]]}, "is no layer"),
        ({"use": [None]}, "None is no layer"),
        ({"use": [1, 1]}, "layer 1 is listed twice"),
        ({"use": ["last", 2]}, "layer 2 is listed twice"),
        ({"use": [1, "first"]}, "layer 'first' is listed twice"),
        ({"use": [1], "by": "max"}, "by: 'max' is not known; layers are mixed by 'mean'"),
        ({"use": [1], "by": None}, "by: None is not known"),
        ({"last": 0}, "last: 0 is not how many of the last layers; give 1 to 2"),
        ({"last": 3}, "last: 3 is not"),
        ({"last": True}, "last: True is not"),
        ({"last": "4"}, "last: '4' is not"),
    ],
)
def test_what_names_no_layers(spec, words):
    with pytest.raises(PoolingError, match=re.escape(words)):
        build(spec, depth=2)


def test_without_a_depth_only_the_last_is_known():
    assert build({"use": ["last"]}, None) == build({"last": 1}, None) == LAST
    for spec in ({"use": [0]}, {"use": ["first", "last"]}, {"last": 4}):
        with pytest.raises(NoLayersError, match="only the states of the last layer are known"):
            build(spec, None)
    with pytest.raises(PoolingError, match="is no layer") as caught:
        build({"use": [True]}, None)
    assert not isinstance(caught.value, NoLayersError)


def test_names():
    assert [str(build(spec, 6)) for spec in ("last", {"use": [0]}, {"last": 4})] == [
        "last layer",
        "layer 0",
        "mean of layers 3, 4, 5, 6",
    ]
    assert str(Layers(((1, 0.75), (2, 0.25)))) == "weighted mean of layers 1, 2"
