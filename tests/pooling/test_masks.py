"""The mask algebra."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from pooling import PoolingError, build, masks, pool_spans

rows = st.lists(st.booleans(), min_size=1, max_size=12)


def shown(mask: torch.Tensor) -> list[str]:
    return ["".join(".x"[int(counts)] for counts in row) for row in mask]


def test_lengths():
    assert shown(masks.from_lengths([1, 3, 0])) == ["x..", "xxx", "..."]
    assert shown(masks.from_lengths(torch.tensor([1, 3]), time=4, padding="left")) == ["...x", ".xxx"]


@pytest.mark.parametrize(("lengths", "time"), [([-1], None), ([5], 4)])
def test_lengths_that_do_not_fit(lengths, time):
    with pytest.raises(ValueError, match="lengths"):
        masks.from_lengths(lengths, time)


def test_a_prompt_is_left_out_under_any_padding():
    mask = torch.tensor([[1, 1, 1, 1, 0], [0, 1, 1, 1, 1], [0, 0, 0, 1, 1]])
    assert shown(masks.exclude_prefix(mask, 2)) == ["..xx.", "...xx", "....."]
    assert shown(masks.exclude_prefix(mask, torch.tensor([0, 1, 1]))) == ["xxxx.", "..xxx", "....x"]
    with pytest.raises(ValueError, match="negative"):
        masks.exclude_prefix(mask, -1)


def test_windows_go_by_the_tokens_that_count():
    mask = torch.tensor([[1, 1, 1, 1, 1, 0, 0], [0, 0, 0, 1, 0, 1, 1]])
    first, second = masks.windows(mask, size=2, stride=2)
    assert shown(first) == ["xx.....", "..xx...", "....x.."]
    assert shown(second) == ["...x.x.", "......x", "......."]


def test_windows_may_overlap_or_leave_gaps():
    mask = torch.ones(1, 6).bool()
    assert shown(masks.windows(mask, size=4, stride=2)[0]) == ["xxxx..", "..xxxx"]
    assert shown(masks.windows(mask, size=1, stride=4)[0]) == ["x.....", "....x."]
    assert shown(masks.windows(mask, size=9, stride=1)[0]) == ["xxxxxx"]


@given(row=rows, size=st.integers(1, 6), stride=st.integers(1, 6))
def test_windows_lose_no_token_and_none_is_empty(row, size, stride):
    mask = torch.tensor([row])
    cut = masks.windows(mask, size, stride)[0]
    assert cut.any(1).all()
    assert (cut.sum(1) <= size).all()
    assert not (cut & ~mask).any()
    if stride <= size and mask.any():
        assert torch.equal(cut.any(0), mask[0])
        assert (cut[:-1].sum(1) == size).all()


@given(row=rows, n=st.integers(1, 8))
def test_adaptive_segments_are_those_of_pytorch(row, n):
    mask = torch.tensor([row])
    cut = masks.adaptive(mask, n)
    assert cut.shape == (1, n, len(row))
    if mask.any():
        tokens = torch.randn(1, len(row), 2)
        vectors, valid = pool_spans(build("mean", 2), tokens, cut)
        assert valid.all()
        assert_close(vectors, torch.nn.functional.adaptive_avg_pool1d(tokens[mask].T[None], n).mT)
    else:
        assert not cut.any()


@pytest.mark.parametrize("call", [lambda m: masks.windows(m, 0, 1), lambda m: masks.windows(m, 1, 0)])
def test_windows_of_no_size_are_refused(call):
    with pytest.raises(PoolingError, match="whole number"):
        call(torch.ones(1, 3))


def test_spans_are_the_tokens_that_overlap():
    #  [CLS] Mill pond ships [SEP] [PAD]   of "Millpond ships"
    offsets = torch.tensor([[[0, 0], [0, 4], [4, 8], [9, 14], [0, 0], [0, 0]]])
    characters = torch.tensor([[[0, 8], [3, 5], [8, 9], [9, 10], [0, 100], [2, 2]]])
    assert shown(masks.spans(offsets, characters)[0]) == [
        ".xx...",
        ".xx...",
        "......",
        "...x..",
        ".xxx..",
        "......",
    ]


def test_pooled_spans_are_the_strategy_on_each_alone(strategy, tokens):
    pooler = strategy.fitted()
    tokens[:, 5] = torch.nan
    spans = torch.zeros(4, 3, 6, dtype=torch.bool)
    spans[0, 0, :2] = spans[0, 1, 2:5] = spans[1, 1, 3:4] = spans[2, 1, [0, 4]] = True
    vectors, valid = pool_spans(pooler, tokens, spans)
    assert vectors.shape == (4, 3, pooler.output_dim)
    assert torch.equal(valid, spans.any(2))
    assert (vectors[~valid] == 0).all()
    for row, span in valid.nonzero().tolist():
        alone = pooler(tokens[row : row + 1], spans[row : row + 1, span])[0]
        assert_close(vectors[row, span], alone, atol=1e-5, rtol=1e-4)


def test_spans_of_half_precision_states_are_float32_and_pass_the_gradient():
    tokens = torch.randn(1, 4, 2, dtype=torch.bfloat16, requires_grad=True)
    vectors, _ = pool_spans(build("mean", 2), tokens, masks.windows(torch.ones(1, 4), 2, 2))
    assert vectors.dtype == torch.float32
    vectors.sum().backward()
    assert_close(tokens.grad, torch.full_like(tokens, 0.5))


def test_only_one_token():
    ids = torch.tensor([[2, 7, 4, 3, 0], [2, 4, 7, 4, 3]])
    counts = torch.tensor([[1, 1, 1, 1, 0], [0, 1, 1, 1, 1]])
    assert masks.only(counts, ids, 4).int().tolist() == [[0, 0, 1, 0, 0], [0, 1, 0, 1, 0]]
    assert not masks.only(counts, ids, 0).any()
