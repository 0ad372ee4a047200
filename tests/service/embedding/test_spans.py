"""Spans that a caller chose, and how many there may be."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.embedding.spans import MOST_COVERED, check_amount, checked, offsets_array, trimmed
from service.errors import InvalidInput, Place, TooLarge

WHERE = partial(Place, "spans")
TEXT = "  One two, three.  Four"
WORDS = [(2, 5), (6, 9), (9, 10), (11, 16), (16, 17), (19, 23)]


def check(spans):
    return checked(TEXT, offsets_array([None, *WORDS, None]), spans, WHERE)


def test_given_spans_are_kept_as_they_are():
    given_spans = [[6, 9], [2, 5], [2, 5], [0, 23], [3, 4], [5, 7], [9, 19]]
    assert check(given_spans) == [tuple(span) for span in given_spans]


@pytest.mark.parametrize(
    ("span", "words"),
    [
        ([5, 5], "spans[1] is [5, 5], which is empty"),
        ([9, 6], "spans[1] is [9, 6], which is reversed"),
        ([-3, 5], "spans[1] is [-3, 5], outside the text of 23 characters"),
        ([6, 24], "spans[1] is [6, 24], outside the text of 23 characters"),
        ([40, 50], "outside the text of 23 characters"),
        ([0, 10**30], "outside the text of 23 characters"),
        ([0, 2], "spans[1] is [0, 2], '  ', which holds no token"),
        ([17, 19], "holds no token"),
        ([5, 6], "holds no token"),
    ],
)
def test_given_spans_that_cannot_be(span, words):
    with pytest.raises(InvalidInput) as raised:
        check([[2, 5], span])
    assert words in raised.value.detail and str(raised.value.where) == "spans[1]"


def test_a_token_that_begins_with_a_space_is_not_in_the_span_before():
    offsets = offsets_array([(0, 3), (3, 7)])  # "One", " two"
    assert trimmed("One two", [(0, 4), (3, 7)]).tolist() == [[0, 3], [4, 7]]
    assert np.ptp(trimmed("One two", [(3, 4)])) == 0
    with pytest.raises(InvalidInput, match="no token"):
        checked("One two", offsets, [[3, 4]], WHERE)


# Amounts


def test_too_many_spans():
    check_amount([[(0, 1)] * 3, [(0, 1)] * 2], 5)
    with pytest.raises(TooLarge, match=r"6 spans .* takes 5"):
        check_amount([[(0, 1)] * 3, [(0, 1)] * 3], 5)
    with pytest.raises(TooLarge, match="overlap less"):
        check_amount([[(0, MOST_COVERED // 2 + 1)] * 2], 5)


@given(st.lists(st.tuples(st.integers(0, 22), st.integers(1, 23)).filter(lambda span: span[0] < span[1]), max_size=8))
def test_whether_a_span_holds_a_token_is_as_defined(spans):
    offsets = offsets_array([(16, 17), (2, 5), (2, 4), None, (6, 10), (19, 23)])
    for span in spans:
        ((start, end),) = trimmed(TEXT, [span])
        if any(a < b and a < end and b > start for a, b in offsets.tolist()):
            assert checked(TEXT, offsets, [span], WHERE) == [span]
        else:
            with pytest.raises(InvalidInput):
                checked(TEXT, offsets, [span], WHERE)


def test_offsets_of_special_tokens_are_empty():
    assert np.array_equal(offsets_array([None, (0, 3)]), [[0, 0], [0, 3]])
    assert offsets_array([]).shape == (0, 2)
