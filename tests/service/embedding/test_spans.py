"""Cutting texts into spans: given, by tokens, by sentence."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from service.embedding.spans import MOST_COVERED, BySentence, ByTokens, Given, check_amount, offsets_array, trimmed
from service.errors import InvalidInput, TooLarge

WHERE = "spans[{}]".format
TEXT = "  One two, three.  Four"
WORDS = [(2, 5), (6, 9), (9, 10), (11, 16), (16, 17), (19, 23)]


def cut(how, text=TEXT, words=None):
    """The pieces of a text whose tokens are words and punctuation, framed by special tokens."""
    offsets = offsets_array([None, *(words if words is not None else WORDS), None])
    return [text[start:end] for start, end in how(text, offsets, WHERE)]


def byte_level(text):
    """Offsets of a byte-level tokenizer: a token has the space before it, a character has up to four tokens."""
    tokenizer = Tokenizer(models.BPE(dict.fromkeys(pre_tokenizers.ByteLevel.alphabet(), 0), []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return offsets_array(tokenizer.encode(text).offsets)


def overlapped(offsets, span, text):
    """Tokens in a span by the definition: they overlap it without the white space at its ends."""
    ((start, end),) = trimmed(text, [span])
    return {place for place, (a, b) in enumerate(offsets.tolist()) if a < b and a < end and b > start}


# Given


def test_given_spans_are_kept_as_they_are():
    given_spans = [[6, 9], [2, 5], [2, 5], [0, 23], [3, 4], [5, 7], [9, 19]]
    assert Given(given_spans)(TEXT, offsets_array(WORDS), WHERE) == [tuple(span) for span in given_spans]


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
        cut(Given([[2, 5], span]))
    assert words in raised.value.detail and raised.value.where == "spans[1]"


def test_a_token_that_begins_with_a_space_is_not_in_the_span_before():
    offsets = offsets_array([(0, 3), (3, 7)])  # "One", " two"
    assert trimmed("One two", [(0, 4), (3, 7)]).tolist() == [[0, 3], [4, 7]]
    assert np.ptp(trimmed("One two", [(3, 4)])) == 0
    with pytest.raises(InvalidInput, match="no token"):
        Given([[3, 4]])("One two", offsets, WHERE)


# By tokens


@pytest.mark.parametrize(
    ("how", "pieces"),
    [
        (ByTokens(2), ["One two", ", three", ".  Four"]),
        (ByTokens(4), ["One two, three", ".  Four"]),
        (ByTokens(4, 2), ["One two, three", ", three.  Four"]),
        (ByTokens(4, 3), ["One two, three", "two, three.", ", three.  Four"]),
        (ByTokens(5, 4), ["One two, three.", "two, three.  Four"]),
        (ByTokens(6), ["One two, three.  Four"]),
        (ByTokens(65_536, 65_535), ["One two, three.  Four"]),
    ],
)
def test_by_tokens(how, pieces):
    assert cut(how) == pieces


def test_by_tokens_parts_no_character():
    family, thumb = "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f44d\U0001f3fd"
    text = f"{family}{thumb}e\u0301!"
    offsets = byte_level(text)
    assert [text[a:b] for a, b in ByTokens(2)(text, offsets, WHERE)] == [family, thumb, "e\u0301", "!"]
    assert [text[a:b] for a, b in ByTokens(30, 3)(text, offsets, WHERE)] == [f"{family}{thumb}e\u0301!"]
    # A token that leaves a combining mark out does not leave the mark out of the span.
    assert ByTokens(1)("e\u0301a", offsets_array([(0, 1), (2, 3)]), WHERE) == [(0, 2), (2, 3)]


def test_by_tokens_parts_no_word_that_fits():
    text = "the unhappiest, 3.14 don't stop"
    pieces = ["the", "un", "happi", "est", ",", "3", ".", "14", "don", "'", "t", "stop"]
    words, end = [], 0
    for piece in pieces:
        start = text.index(piece, end)
        words.append((start, end := start + len(piece)))
    assert cut(ByTokens(4), text, words) == ["the unhappiest", ", 3.14", "don't stop"]
    assert cut(ByTokens(4, 1), text, words) == ["the unhappiest", ", 3.14", "don't stop"]
    assert cut(ByTokens(5, 1), text, words) == ["the unhappiest,", ", 3.14", "don't stop"]
    assert cut(ByTokens(2), text, words)[:3] == ["the un", "happiest", ", 3"]
    assert cut(ByTokens(1), text, words) == pieces


texts = st.text("ab .\n\u0301\u200d\U0001f468\U0001f1e9\U0001f1ea\U0001f3fdé好", min_size=1, max_size=40).filter(
    str.strip
)


@given(text=texts, size=st.integers(1, 9), data=st.data())
def test_by_tokens_covers_every_token_and_slices_exactly(text, size, data):
    overlap = data.draw(st.integers(0, size - 1))
    offsets = byte_level(text)
    spans = ByTokens(size, overlap)(text, offsets, WHERE)
    edges = {match.start() for match in regex.finditer(r"\X", text)} | {len(text)}
    held = [overlapped(offsets, span, text) for span in spans]
    counting = {place for place, (start, end) in enumerate(offsets.tolist()) if text[start:end].strip()}
    assert set().union(*held) >= counting
    assert all(held) and all({start, end} <= edges for start, end in spans)
    for one, (start, end) in zip(held, spans, strict=True):
        inner = one & counting
        assert len(inner) <= size or len(regex.findall(r"\X", text[start:end])) == 1
    for (start, end), (after, beyond) in pairwise(spans):
        assert start < after and end < beyond
    for one, after in pairwise(held):
        assert len(one & after & counting) <= overlap


@given(count=st.integers(1, 60), size=st.integers(1, 12), data=st.data())
def test_by_tokens_is_a_sliding_window_where_tokens_are_words(count, size, data):
    overlap = data.draw(st.integers(0, size - 1))
    text = "x " * count
    found = ByTokens(size, overlap)(text, offsets_array([(2 * i, 2 * i + 1) for i in range(count)]), WHERE)
    stride = size - overlap
    starts = [first for first in range(0, count, stride) if first == 0 or first - stride + size < count]
    assert [(a // 2, (b + 1) // 2) for a, b in found] == [(first, min(first + size, count)) for first in starts]


# By sentence


def test_by_sentence_leaves_out_those_without_a_token():
    text = "One. \u200b. Two."
    assert BySentence()(text, offsets_array([(0, 3), (3, 4), (8, 11), (11, 12)]), WHERE) == [(0, 4), (8, 12)]


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
        if overlapped(offsets, span, TEXT):
            assert Given([span])(TEXT, offsets, WHERE) == [span]
        else:
            with pytest.raises(InvalidInput):
                Given([span])(TEXT, offsets, WHERE)


def test_offsets_of_special_tokens_are_empty():
    assert np.array_equal(offsets_array([None, (0, 3)]), [[0, 0], [0, 3]])
    assert offsets_array([]).shape == (0, 2)
