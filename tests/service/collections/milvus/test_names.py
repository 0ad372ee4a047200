"""Names of Millpond are told apart in Milvus, and read from there."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.collections.milvus.generation import physical_name
from service.collections.milvus.names import alias_of, name_of
from service.collections.protocols import NAME


@given(st.from_regex(NAME, fullmatch=True))
def test_a_name_is_that_of_its_alias(name):
    alias = alias_of(name)
    assert re.fullmatch("[A-Za-z_][A-Za-z0-9_]{0,254}", alias)
    assert name_of(alias) == name


@pytest.mark.parametrize("name", ["a_b", "a.b", "a-b", "0_x", "x" + "_" * 127, "x" + "-." * 63, "9" * 128])
def test_what_is_escaped(name):
    assert name_of(alias_of(name)) == name


@pytest.mark.parametrize("alias", ["other", "millpond", physical_name(7, 9), "millpond_a_q", "millpond_a_"])
def test_what_is_none_of_ours(alias):
    assert name_of(alias) is None
