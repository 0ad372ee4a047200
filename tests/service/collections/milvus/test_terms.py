"""What of metadata is stored for filters, and what of the filter language Milvus cannot answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.collections.milvus.terms import LONGEST_BOUND, expression, indexed_terms
from service.errors import InvalidDocument, InvalidFilter
from service.store.filters import compile_filter

integers = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([2**53, 2**53 + 1, -(2**53) - 1])
numbers = integers | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=200)


def bounds(values):
    ((lowest, highest),) = indexed_terms("a", {"x": values})[1].values()
    return lowest, highest


@given(numbers, numbers)
def test_numbers_are_in_order(one, other):
    first, second = bounds([one])[0], bounds([other])[0]
    assert (first < second, first == second) == (one < other, one == other)
    assert bounds([one, other]) == (min(first, second), max(first, second))


@given(texts, texts)
def test_strings_are_in_order_as_far_as_they_are_compared(text, bound):
    beginning = bounds([text])[0]
    if len(bound.encode()) < LONGEST_BOUND:
        (asked,) = bounds([bound])[:1]
        assert (beginning < asked, beginning == asked) == (text < bound, text == bound)


@pytest.mark.parametrize(
    ("filter_", "said"),
    [
        ({"a": {"$contains": "x"}}, r"filter\.a: .*\$contains.*before 2\.5"),
        ({"$not": {"a.b": {"$icontains": "x"}}}, r"filter\.a\.b: .*'embedded'"),
        ({"a": {"$gt": "é" * 64}}, r"filter\.a: .*up to 127 bytes, and this has 128"),
        ({"a": {"$gte": "a", "$lt": "b" * 128}}, "this has 128"),
    ],
)
def test_what_cannot_be_answered_is_refused(filter_, said):
    with pytest.raises(InvalidFilter, match=said):
        expression(compile_filter(filter_))


def test_more_than_milvus_holds_is_refused():
    many = {"a": [*range(4094)]}
    assert len(indexed_terms("a", many)[0]) == 4096
    with pytest.raises(InvalidDocument, match=r"'a': .* would need 4097 terms, and Milvus holds 4096"):
        indexed_terms("a", {"a": [*range(4095)]})
    with pytest.raises(InvalidDocument, match=r"'a': .*holds 65536 a document"):
        indexed_terms("a", {str(i): i for i in range(1000)})
