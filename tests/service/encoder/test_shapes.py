"""Buckets of shapes: bounded in number, never too small, and little padding."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.encoder.shapes import AnyShape, ShapeBuckets

TOKENS = st.sampled_from([64, 1000, 1024, 16_384])
LONGEST = st.sampled_from([30, 256, 512, 8190])


@given(TOKENS, LONGEST, st.data())
def test_every_pass_has_a_shape_of_the_set(tokens, longest, data):
    shapes = ShapeBuckets(tokens, longest)
    length = data.draw(st.integers(1, longest))
    width = shapes.width(length)
    rows = shapes.rows(data.draw(st.integers(1, max(tokens // width, 1))))
    assert (rows, width) in set(shapes)


@given(LONGEST, st.data())
def test_a_row_fits_and_little_of_it_is_padding(longest, data):
    length = data.draw(st.integers(1, longest))
    width = ShapeBuckets(1024, longest).width(length)
    assert length <= width <= longest
    assert width - length < max(4, length / 4 if length <= 64 else length / 7.9)


@given(st.integers(1, 10_000))
def test_at_least_two_thirds_of_the_rows_run_now(count):
    rows = ShapeBuckets(1024, 512).rows(count)
    assert 2 * count / 3 < rows <= count or rows == count


@pytest.mark.parametrize(("tokens", "longest", "most"), [(1024, 256, 212), (1024, 512, 230), (1024, 8190, 262)])
def test_the_set_is_small(tokens, longest, most):
    shapes = ShapeBuckets(tokens, longest)
    assert len(shapes) == len(set(shapes)) == most
    assert all(rows == 1 or rows * width <= tokens for rows, width in shapes)
    assert max(width for _, width in shapes) == longest


def test_worked_shapes():
    shapes = ShapeBuckets(1024, 512)
    assert [shapes.width(length) for length in (1, 4, 5, 31, 33, 129, 257, 500)] == [4, 4, 8, 32, 40, 144, 288, 512]
    assert [shapes.rows(count) for count in (1, 2, 3, 5, 7, 11, 23, 33, 200)] == [1, 2, 3, 4, 6, 8, 16, 32, 192]
    assert shapes.width(600) == 600  # longer than it was told: as it is, rather than cut


def test_any_shape_is_taken_as_it_comes():
    assert (AnyShape().width(37), AnyShape().rows(37), len(AnyShape()), list(AnyShape())) == (37, 37, 0, [])
