"""Filters find the same documents on every engine, or are refused as what it cannot answer."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.collections import Selection
from service.errors import InvalidFilter
from service.store import Document
from tests.service.store.test_filters import evaluate, filters, metadatas, rows_of_the_documentation
from tests.support.definitions import definition


@pytest.fixture
def collection(collections):
    return collections.create("notes", definition(), 1, "flat")[0]


@pytest.fixture
def select(engine, collection):
    """Stores metadata and returns the positions that a filter matches, by every way to ask; None: it is refused."""

    def select(filter_, stored):
        documents = [Document(str(place), "", metadata) for place, metadata in enumerate(stored)]
        collection.delete_many(Selection(all=True))
        collection.upsert(documents, np.ones((len(stored), 1), np.float32))
        try:
            listed = [int(each.document.id) for each in collection.page(100, None, filter_).documents]
        except InvalidFilter as error:
            assert refuses(engine, filter_), error
            return None
        assert not refuses(engine, filter_)
        assert collection.count_matching(filter_) == len(listed)
        assert [int(hit.id) for hit in collection.search(np.ones((1, 1)), 100, filter_)[0]] == listed
        return listed

    return select


def refuses(engine, part):
    """Whether an engine cannot answer a filter: Milvus looks for no parts of strings, and orders no long ones."""
    if engine == "embedded":
        return False
    if isinstance(part, list):
        return any(refuses(engine, each) for each in part)
    return isinstance(part, dict) and any(
        name in ("$contains", "$icontains")
        or (name in ("$gt", "$gte", "$lt", "$lte") and isinstance(operand, str) and len(operand.encode()) >= 128)
        or (name not in ("$in", "$nin") and refuses(engine, operand))
        for name, operand in part.items()
    )


@settings(max_examples=3 * settings.default.max_examples, suppress_health_check=list(HealthCheck), deadline=None)
@given(filter_=filters, stored=st.lists(metadatas, min_size=1, max_size=8))
def test_agrees_with_a_plain_evaluator(select, filter_, stored):
    assert select(filter_, stored) in (
        None,
        [place for place, metadata in enumerate(stored) if evaluate(filter_, metadata)],
    )


def test_the_table_of_the_documentation(select):
    for metadata, filter_, matches in rows_of_the_documentation():
        assert select(filter_, [metadata]) in (None, [0] if matches else []), (metadata, filter_)
        assert select({"$not": filter_}, [metadata]) in (None, [] if matches else [0]), (metadata, filter_)


def test_missing_null_lists_nested_fields_and_kinds(select):
    stored = [
        {},
        {"a": None},
        {"a": True},
        {"a": 1},
        {"a": 1.0},
        {"a": "1"},
        {"a": [1, 9]},
        {"a": {"b": 1}},
        {"a": []},
    ]
    for filter_, expected in [
        ({"a": 1}, [3, 4, 6]),
        ({"a": True}, [2]),
        ({"a": None}, [1]),
        ({"a": {"$ne": 1}}, [0, 1, 2, 5, 7, 8]),
        ({"a": {"$gt": 0}}, [3, 4, 6]),
        ({"a": {"$not": {"$gt": 0}}}, [0, 1, 2, 5, 7, 8]),
        ({"a": {"$gt": 5, "$lt": 2}}, [6]),
        ({"a": {"$exists": True}}, [1, 2, 3, 4, 5, 6, 7, 8]),
        ({"a": {"$exists": False}}, [0]),
        ({"a.b": {"$lte": 1}}, [7]),
        ({"a": {"$in": ["1", None]}}, [1, 5]),
        ({"a": {"$nin": []}}, [*range(9)]),
        ({"a": {"$in": []}}, []),
    ]:
        assert select(filter_, stored) == expected, filter_


def test_numbers_that_no_float_tells_apart(select):
    stored = [{"a": 2**53}, {"a": 2**53 + 1}, {"a": 2**63 - 1}, {"a": -(2**63)}, {"a": 5e-324}, {"a": -0.0}]
    for filter_, expected in [
        ({"a": {"$gt": 2**53}}, [1, 2]),
        ({"a": 2.0**53}, [0]),
        ({"a": {"$lt": 2.0**63}}, [0, 1, 2, 3, 4, 5]),
        ({"a": {"$lte": -(2.0**63)}}, [3]),
        ({"a": {"$gt": 0}}, [0, 1, 2, 4]),
        ({"a": 0}, [5]),
    ]:
        assert select(filter_, stored) == expected, filter_


def test_in_takes_thousands_of_values(select):
    many = [*range(0, 20_000, 2), *(f"s{i}" for i in range(10_000)), None, True]
    stored = [{"a": 19_998}, {"a": 19_997}, {"a": "s9999"}, {"a": "s10000"}, {"a": None}, {"a": False}, {}]
    assert select({"a": {"$in": many}}, stored) == [0, 2, 4]
    assert select({"a": {"$nin": many}}, stored) == [1, 3, 5, 6]


def test_the_largest_filters_run(select):
    broad = {f"f{i}": {"$ne": 1} for i in range(250)}
    assert select(broad, [{"f0": 2}, {"f249": 1}]) == [0]
    deep = {"a": 1}
    for _ in range(9):
        deep = {"$not": {"$or": [deep]}}
    assert select(deep, [{"a": 1}, {"a": 2}]) == [1]
