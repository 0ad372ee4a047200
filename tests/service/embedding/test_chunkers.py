"""Cutting texts into spans: by tokens, by sentence."""

from __future__ import annotations

from itertools import pairwise

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from service.embedding.chunkers import BySentence, ByTokens, Chunker, build
from service.embedding.chunking import Chunking
from service.embedding.spans import offsets_array, trimmed
from service.errors import InvalidInput

TEXT = "  One two, three.  Four"
WORDS = [(2, 5), (6, 9), (9, 10), (11, 16), (16, 17), (19, 23)]


def cut(how: Chunker, text=TEXT, words=None):
    """The pieces of a text whose tokens are words and punctuation, framed by special tokens."""
    offsets = offsets_array([None, *(words if words is not None else WORDS), None])
    return [text[start:end] for start, end in how(text, offsets)]


def byte_level(text):
    """Offsets of a byte-level tokenizer: a token has the space before it, a character has up to four tokens."""
    tokenizer = Tokenizer(models.BPE(dict.fromkeys(pre_tokenizers.ByteLevel.alphabet(), 0), []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return offsets_array(tokenizer.encode(text).offsets)


def overlapped(offsets, span, text):
    """Tokens in a span by the definition: they overlap it without the white space at its ends."""
    ((start, end),) = trimmed(text, [span])
    return {place for place, (a, b) in enumerate(offsets.tolist()) if a < b and a < end and b > start}


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
    assert [text[a:b] for a, b in ByTokens(2)(text, offsets)] == [family, thumb, "e\u0301", "!"]
    assert [text[a:b] for a, b in ByTokens(30, 3)(text, offsets)] == [f"{family}{thumb}e\u0301!"]
    # A token that leaves a combining mark out does not leave the mark out of the span.
    assert ByTokens(1)("e\u0301a", offsets_array([(0, 1), (2, 3)])) == [(0, 2), (2, 3)]


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
    spans = ByTokens(size, overlap)(text, offsets)
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
    found = ByTokens(size, overlap)(text, offsets_array([(2 * i, 2 * i + 1) for i in range(count)]))
    stride = size - overlap
    starts = [first for first in range(0, count, stride) if first == 0 or first - stride + size < count]
    assert [(a // 2, (b + 1) // 2) for a, b in found] == [(first, min(first + size, count)) for first in starts]


# By sentence


@given(text=texts, most=st.integers(2, 12))
def test_by_sentence_is_bounded_in_tokens_and_leaves_nothing_out(text, most):
    offsets = byte_level(text)
    spans = BySentence()(text, offsets, most)
    counting = {place for place, (start, end) in enumerate(offsets.tolist()) if text[start:end].strip()}
    held = [overlapped(offsets, span, text) & counting for span in spans]
    assert set().union(*held) >= counting
    for inner, (start, end) in zip(held, spans, strict=True):
        assert len(inner) <= most or len(regex.findall(r"\X", text[start:end])) == 1
    assert all(end <= after for (_, end), (after, _) in pairwise(spans))


def test_a_sentence_that_is_too_long_is_cut_evenly_and_others_are_not_touched():
    text = "One. The " + "word " * 100 + "two."
    words = [(match.start(), match.end()) for match in regex.finditer(r"\w+", text)]
    assert [piece.count("word") for piece in cut(BySentence(), text, words)] == [0, 100]
    bounded = [text[a:b] for a, b in BySentence()(text, offsets_array(words), 40)]
    assert bounded[0] == "One." and [piece.count("word") for piece in bounded[1:]] == [33, 34, 33]


def test_by_sentence_leaves_out_those_without_a_token():
    text = "One. \u200b. Two."
    assert BySentence()(text, offsets_array([(0, 3), (3, 4), (8, 11), (11, 12)])) == [(0, 4), (8, 12)]


# By name


@pytest.mark.parametrize(
    "stored",
    [
        {"by": "tokens", "tokens": 64, "overlap": 16, "mode": "late"},
        {"by": "sentence", "mode": "early"},
        {"by": "given", "mode": "late"},
    ],
)
def test_a_chunking_is_stored_and_read(stored):
    assert Chunking.from_json(stored).to_json() == stored
    assert Chunking.from_json(stored).by == stored["by"]


def test_chunkers_are_built_by_name():
    assert build("tokens", {"tokens": 5}) == ByTokens(5, 0)
    assert build("sentence", {}) == BySentence()


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("token", {}, "'token' is no way to cut a text; known are 'tokens', 'sentence'. Did you mean 'tokens'?"),
        ("tokens", {}, "by tokens, 'tokens' must say how many; or give 'by': 'sentence'."),
        ("tokens", {"tokens": 4, "overlap": 4}, "'overlap' must be less than 'tokens', and 4 is not less than 4."),
        ("sentence", {"tokens": 4}, "'by': 'sentence' takes neither 'tokens' nor 'overlap'."),
    ],
)
def test_what_no_chunker_is_built_from(name, options, words):
    with pytest.raises(InvalidInput) as raised:
        build(name, options)
    assert raised.value.detail == words
