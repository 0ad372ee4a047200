"""How much work a strategy is said to be, against the segments that it makes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pooling
from pooling.compose import Adaptive, Segments, Windows
from pooling.work import work

DIM = 4
counts = st.integers(1, 40)


@given(
    tokens=counts,
    stage=st.builds(Windows, st.just(DIM), counts, counts) | st.builds(Adaptive, st.just(DIM), counts),
)
def test_segments_are_counted_without_making_them(tokens: int, stage: Segments) -> None:
    segments = stage._masks(torch.ones(1, tokens, dtype=torch.bool))[0]
    assert stage.count(tokens) == len(segments)
    assert segments.sum(1).max() <= stage.width(tokens) <= tokens


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ("mean", "window(2, 1) > mean"),
        ("window(2, 1) > mean", "window(2, 1) > window(2, 1) > mean"),
        ("window(2, 2) > mean", "window(2, 1) > mean"),
        ("window(2, 1) > mean", "window(64, 1) > mean"),
        ("window(2, 1) > mean", "window(2, 1, by=max) > mean"),
        ("window(2, 1) > mean", "window(2, 1) > max"),
        ("window(2, 1) > mean", "(window(2, 1) > mean) + (window(3, 3) > mean)"),
        ("window(2, 1) > mean", "adaptive(n=4096) > mean"),
    ],
)
def test_more_work_is_more(less: str, more: str) -> None:
    one, other = (work(pooling.build(spec, 32), 512) for spec in (less, more))
    assert 0 <= one < other
    assert work(pooling.build(more, 32), 1024) > other or "4096" in more
