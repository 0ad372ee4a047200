"""What holds for every strategy."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from pooling import EmptyTextError, MeanSqrtLen, Pooler, available, stages

DIM = 8
GARBAGE = [0.0, 1e4, -1e30, math.nan, math.inf, -math.inf]


def padded(
    texts: list[torch.Tensor], left: list[int], time: int, garbage: float
) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.full((len(texts), time, DIM), garbage)
    mask = torch.zeros(len(texts), time, dtype=torch.bool)
    for row, (text, start) in enumerate(zip(texts, left, strict=True)):
        tokens[row, start : start + len(text)] = text
        mask[row, start : start + len(text)] = True
    return tokens, mask


@settings(max_examples=settings.default.max_examples // 8)
@given(data=st.data())
def test_padding_never_matters(strategy, data):
    """A text alone, and in a batch with padding of any length and content on either side, has one vector."""
    pooler = strategy.fitted()
    lengths = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    torch.manual_seed(data.draw(st.integers(0, 99)))
    texts = [torch.randn(length, DIM) for length in lengths]
    time = max(lengths) + data.draw(st.integers(0, 3))
    left = [data.draw(st.integers(0, time - length)) for length in lengths]
    tokens, mask = padded(texts, left, time, data.draw(st.sampled_from(GARBAGE)))
    vectors, weights = pooler(tokens, mask), pooler.weights(tokens, mask)
    assert vectors.shape == (len(texts), pooler.output_dim)
    for row, text in enumerate(texts):
        everything = torch.ones(1, len(text), dtype=torch.bool)
        assert_close(vectors[row], pooler(text[None], everything)[0], atol=1e-5, rtol=1e-4)
        assert_close(weights[row][mask[row]], pooler.weights(text[None], everything)[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_pooled_in_float32(strategy, dtype, tokens, mask):
    pooler, half = strategy.fitted(), tokens.to(dtype)
    assert torch.equal(pooler(half, mask), pooler(half.float(), mask))
    assert torch.equal(pooler.weights(half, mask), pooler.weights(half.float(), mask))
    assert pooler(half, mask).dtype == torch.float32


def test_double_precision_is_kept(strategy, tokens, mask):
    pooler = strategy.fitted()
    vectors = pooler(tokens.double(), mask)
    assert vectors.dtype == torch.float64
    assert_close(vectors.float(), pooler(tokens, mask), atol=1e-5, rtol=1e-4)


def test_autocast_does_not_lower_the_precision(strategy, tokens, mask):
    pooler = strategy.fitted()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        vectors = pooler(tokens, mask)
    assert torch.equal(vectors, pooler(tokens, mask))


def test_inputs_are_never_changed(strategy, tokens, mask):
    tokens[~mask] = math.nan
    given_tokens, given_mask = tokens.clone(), mask.clone()
    pooler = strategy.fitted()
    pooler(tokens, mask), pooler.weights(tokens, mask)
    assert_close(tokens, given_tokens, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(mask, given_mask)


def test_rows_do_not_see_each_other(strategy, tokens, mask):
    pooler, order = strategy.fitted(), torch.tensor([2, 0, 3, 1])
    assert_close(pooler(tokens[order], mask[order]), pooler(tokens, mask)[order])
    assert_close(pooler.weights(tokens[order], mask[order]), pooler.weights(tokens, mask)[order])


def test_integer_masks_are_masks(strategy, tokens, mask):
    pooler = strategy.fitted()
    assert torch.equal(pooler(tokens, mask.long()), pooler(tokens, mask))


def test_weights_have_one_share_a_token_or_one_a_dimension(strategy, tokens, mask):
    pooler = strategy.fitted()
    weights = pooler.weights(tokens, mask)
    assert weights.shape in {mask.shape, (*mask.shape, pooler.output_dim)}
    assert (weights[~mask] == 0).all()
    assert (weights[mask] != 0).any()


def test_weights_add_up_to_one(total, tokens, mask):
    sums = total.fitted().weights(tokens, mask).sum(1)
    assert_close(sums, torch.ones_like(sums))


def test_weights_of_mean_sqrt_len_add_up_to_the_root_of_the_length(tokens, mask):
    weights = MeanSqrtLen(DIM).weights(tokens, mask)
    assert_close(weights, mask / mask.sum(1, keepdim=True).sqrt())


def test_weights_make_the_vector(linear, tokens, mask):
    pooler = linear.fitted()
    weights = pooler.weights(tokens, mask)
    if weights.dim() == 2:
        weights = weights.unsqueeze(2)
    repeated = tokens.repeat(1, 1, pooler.output_dim // DIM)
    assert_close((weights * repeated).sum(1), pooler(tokens, mask), atol=1e-5, rtol=1e-5)


def test_an_empty_text_is_an_error_that_names_it(strategy, tokens, mask):
    mask[1] = mask[3] = False
    pooler = strategy.fitted()
    for call in (pooler, pooler.weights):
        with pytest.raises(EmptyTextError, match="row 1, 3") as caught:
            call(tokens, mask)
        assert caught.value.rows == [1, 3]


@pytest.mark.parametrize(
    ("tokens", "mask", "says"),
    [
        (torch.zeros(2, 3, 7), torch.ones(2, 3).bool(), "batch, time, 8"),
        (torch.zeros(3, 8), torch.ones(2, 3).bool(), "batch, time, 8"),
        (torch.zeros(2, 3, 8).long(), torch.ones(2, 3).bool(), "floats"),
        (torch.zeros(2, 3, 8), torch.ones(3, 2).bool(), r"shape \(2, 3\)"),
        (torch.zeros(2, 3, 8), torch.ones(2, 3), "bool"),
        (torch.zeros(2, 3, 8), 2 * torch.ones(2, 3).long(), "0 and 1"),
    ],
)
def test_wrong_shapes_and_types_are_refused(strategy, tokens, mask, says):
    with pytest.raises(ValueError, match=says):
        strategy.untrained()(tokens, mask)


def test_every_strategy_says_what_it_is():
    for name, cls in {**available(), **stages()}.items():
        assert cls.name == name
        assert all(0 < len(text) < 100 and "\n" not in text for text in (cls.summary, cls.good_for, cls.weak_at))


def test_trained_is_a_matter_of_every_part(strategy):
    pooler = strategy.untrained()
    learned = [m for m in pooler.modules() if isinstance(m, Pooler) and m.learned]
    assert pooler.trained == (not learned)
    pooler.mark_trained()
    assert pooler.trained
