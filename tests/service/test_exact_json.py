"""Numbers are what was written, and nothing else is read differently than orjson reads it."""

import json
import math
import string

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import exact_json


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("9223372036854775807", 2**63 - 1),
        ("[-9223372036854775808, 1]", [-(2**63), 1]),
        ("9223372036854775808", 2**63),
        ("-9223372036854775809", -(2**63) - 1),
        ('{"n": 123456789012345678901234567890}', {"n": 123456789012345678901234567890}),
        ("1" * 308, int("1" * 308)),
        ("1" * 400, int("1" * 400)),
        ("12345678901234567890.5", 12345678901234567890.5),
        ("0.12345678901234567890123", 0.12345678901234567890123),
        ("[0.0012345678901234567890, 12345678901234567890]", [0.0012345678901234567890, 12345678901234567890]),
        ("1e30", 1e30),
        ('["12345678901234567890", 1]', ["12345678901234567890", 1]),
        ("[1e999, -1e999]", [math.inf, -math.inf]),
    ],
)
def test_numbers(text, value):
    parsed = exact_json.loads(text.encode())
    assert parsed == value and type(parsed) is type(value)


def test_an_integer_of_many_digits_is_beyond_everything():
    assert exact_json.loads(b"-" + b"7" * 100_000) < -(10**300)


@pytest.mark.parametrize(
    "text",
    [
        b"[1e999, NaN]",
        b"[1e999, Infinity]",
        b'[1e999, "\\ud800"]',
        b'{"a": 1e999, "\\udc00": 1}',
        b'[1e999, "\xff"]',
        b"[1e999, 1",
        b"[1e999, '1']",
        b"[1e999" + b"[" * 100_000,
    ],
)
def test_what_is_no_json_is_refused_beside_a_number_beyond_floats(text):
    with pytest.raises(orjson.JSONDecodeError):
        exact_json.loads(text)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(string.ascii_letters), inner, max_size=4),
)


@given(values)
def test_everything_comes_back(value):
    assert exact_json.loads(json.dumps(value).encode()) == value
