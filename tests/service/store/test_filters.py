import json
import re
import sqlite3
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.errors import InvalidFilter
from service.store.filters import MAX_DEPTH, MAX_TERMS, compile_filter
from service.store.metadata import Selection, index_metadata
from service.store.schema import prepare

NAMES = ["a", "b", "a.b", "$a", "a\\b", 'q"', "c d", "é", "a'b", "x]", "\n"]
DOCS = Path(__file__).parents[3] / "docs/collections.md"


def evaluate(filter_, metadata):
    """The filter language once more, as plainly as Python says it."""
    return all(entry(key, value, metadata) for key, value in filter_.items())


def entry(key, value, metadata):
    if key == "$and":
        return all(evaluate(part, metadata) for part in value)
    if key == "$or":
        return any(evaluate(part, metadata) for part in value)
    if key == "$not":
        return not evaluate(value, metadata)
    found = lookup([metadata], keys_of(key))
    operators = value if isinstance(value, dict) else {"$eq": value}
    return all(holds(name, operand, found) for name, operand in operators.items())


def keys_of(field):
    """Split a field at its dots, but for those behind a backslash."""
    for escaped, placeholder in (("\\\\", "\0"), ("\\.", "\1"), ("\\$", "$")):
        field = field.replace(escaped, placeholder)
    return [key.replace("\1", ".").replace("\0", "\\") for key in field.split(".")]


def escaped(keys):
    return ".".join(key.replace("\\", "\\\\").replace(".", "\\.").replace("$", "\\$") for key in keys)


def lookup(objects, keys):
    """The values at a path, also through objects that are elements of a list; an empty list is one itself."""
    for key in keys:
        values = [item[key] for item in objects if isinstance(item, dict) and key in item]
        objects = [item for value in values for item in (value if isinstance(value, list) and value else [value])]
    return objects


def holds(name, operand, found):
    match name:
        case "$exists":
            return bool(found) is operand
        case "$not":
            return not all(holds(inner, value, found) for inner, value in operand.items())
        case "$ne":
            return not holds("$eq", operand, found)
        case "$nin":
            return not holds("$in", operand, found)
        case "$in":
            return any(holds("$eq", value, found) for value in operand)
        case "$eq":
            return any(kind(item) == kind(operand) and item == operand for item in found)
    compare = {
        "$gt": lambda x: x > operand,
        "$gte": lambda x: x >= operand,
        "$lt": lambda x: x < operand,
        "$lte": lambda x: x <= operand,
        "$contains": lambda x: operand in x,
        "$icontains": lambda x: operand.casefold() in x.casefold(),
    }
    return any(compare[name](item) for item in found if kind(item) == kind(operand))


def kind(value):
    if isinstance(value, bool) or value is None or isinstance(value, dict | list):
        return type(value)
    return str if isinstance(value, str) else float


# Few values of every kind, so that filters and metadata meet, and integers that no float tells apart.
ends = [2**53, 2**53 + 1, float(2**53), 2**63 - 1, -(2**63), float(2**63), 1e300, 5e-324]
numbers = st.sampled_from([0, 1, 2, -1, 1.0, 1.5, 0.1, 0.30000000000000004, -0.0, *ends])
strings = st.sampled_from(
    ["", "a", "b", "B", "ab", "é", "É", "ß", "1", "true", "null", "[1]", '{"a":1}', 'q"\\\n', "\U0001f600", "\uffff"]
)
LONG = "Langes Ä " * 25
LONGS = [LONG[:200], LONG[:201], LONG, f"{LONG}a", f"{LONG}b", f"X{LONG}", LONG[100:], LONG.lower()]
strings |= st.integers(0, len(LONGS) - 1).map(lambda place: LONGS[place])
scalars = st.one_of(numbers, strings, st.booleans(), st.none())
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=6,
)
metadatas = st.dictionaries(st.sampled_from(NAMES), values, max_size=4)
fields = st.lists(st.sampled_from(NAMES), min_size=1, max_size=2).map(escaped)
plain_operators = st.one_of(
    st.fixed_dictionaries({"$eq": scalars}, optional={"$exists": st.booleans()}),
    st.fixed_dictionaries({"$ne": scalars}, optional={"$exists": st.booleans()}),
    st.fixed_dictionaries({"$exists": st.booleans()}),
    st.fixed_dictionaries({"$in": st.lists(scalars, max_size=4)}),
    st.fixed_dictionaries({"$nin": st.lists(scalars, max_size=4)}, optional={"$ne": scalars}),
    st.dictionaries(st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), numbers | strings, min_size=1, max_size=2),
    st.dictionaries(st.sampled_from(["$contains", "$icontains"]), strings, min_size=1, max_size=1),
)
operators = plain_operators | plain_operators.map(lambda inner: {"$not": inner})
filters = st.recursive(
    st.dictionaries(fields, scalars | operators, max_size=2),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"$and": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"$or": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"$not": inner.filter(bool)}),
        st.tuples(inner, inner).map(lambda pair: {**pair[0], **pair[1]}),
    ),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def connection(tmp_path_factory):
    """A connection to an empty store, in a transaction."""
    file = tmp_path_factory.mktemp("store") / "millpond.sqlite3"
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("PRAGMA foreign_keys = ON")
    connection.create_function("casefold", 1, str.casefold)
    prepare(connection, file)
    connection.execute("BEGIN")
    for key in (1, 2):
        connection.execute(
            "INSERT INTO collections (key, name, definition, dim, index_kind, created) "
            "VALUES (?, ?, '{}', 1, 'flat', '')",
            (key, str(key)),
        )
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def selection(connection):
    """Stores metadata as that of documents with keys from 0, in two collections, and returns what selects of one."""

    def selection(metadatas):
        connection.execute("DELETE FROM documents")
        connection.execute("DELETE FROM fields")
        connection.executemany(
            "INSERT INTO documents VALUES (?, ?, ?, '', ?, x'')",
            [
                (key + 1000 * other, 1 + other, str(key), json.dumps(metadata, ensure_ascii=False))
                for key, metadata in enumerate(metadatas)
                for other in (False, True)
            ],
        )
        index_metadata(connection)
        return Selection(connection, 1)

    return selection


@pytest.fixture(scope="module")
def select(selection):
    """Runs a filter over metadata and returns the positions of those that match."""

    def select(filter_, metadatas):
        return selection(metadatas).keys(compile_filter(filter_)).tolist()

    return select


@settings(max_examples=5 * settings.default.max_examples)
@given(filter_=filters, metadatas=st.lists(metadatas, min_size=1, max_size=8), few=st.sampled_from([0, 2, 5000]))
@example({"a": {"$ne": 1}}, [{}, {"a": None}, {"a": [1, 2]}, {"a": {"b": 1}}, {"a": True}], 5000)
@example({"$not": {"a": {"$gt": 1}}}, [{}, {"a": "x"}, {"a": 2}, {"a": [0, 2]}, {"a": []}], 5000)
@example({"a.b": {"$ne": 1}}, [{"a": [{"b": 2}, {"b": 1}]}, {"a": [[{"b": 1}]]}, {"a": [{}, 3]}], 0)
@example({"a": {"$gt": 1, "$lt": 1}}, [{"a": [0, 2]}, {"a": 1}, {"a": [2]}, {"a": [[0], [2]]}], 2)
@example(
    {"a": 1, "b": {"$contains": "x"}, "c d": {"$gt": 1}}, [{"a": 1, "b": "xy", "c d": 2}, {"a": 1}, {"b": "x"}], 2
)
@example({"a": {"$contains": "gesa"}}, [{"a": LONG}, {"a": f"{LONG}gesa"}, {"a": ["x", f"{LONG}gesa"]}], 0)
@example({"a": {"$gt": LONG, "$lte": f"{LONG}b"}}, [{"a": LONG}, {"a": f"{LONG}a"}, {"a": f"{LONG}c"}, {"a": "M"}], 2)
def test_agrees_with_a_plain_evaluator(select, filter_, metadatas, few):
    """However many documents are few enough to be looked at one by one."""
    expected = [i for i, metadata in enumerate(metadatas) if evaluate(filter_, metadata)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("service.store.metadata._FEW", few)
        assert select(filter_, metadatas) == expected


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_equals_itself(select, number):
    assert select({"a": number}, [{"a": number}]) == [0]
    assert select({"a": {"$in": [number]}}, [{"a": [number]}]) == [0]


def test_metadata_that_changes_under_a_key(connection, selection):
    def found(filter_):
        return chosen.keys(compile_filter(filter_)).tolist()

    chosen = selection([{"a": 1, "b": [1, 2]}, {"a": 2}])
    connection.execute("""UPDATE documents SET metadata = '{"a": 2, "c": {"d": 5}}' WHERE key = 0""")
    index_metadata(connection)
    assert (found({"a": 1}), found({"a": 2}), found({"b": {"$exists": True}}), found({"c.d": 5})) == (
        [],
        [0, 1],
        [],
        [0],
    )
    connection.execute("DELETE FROM documents WHERE key = 1")
    connection.execute("UPDATE documents SET vector = x'00'")
    assert (found({"a": 2}), found({"a": {"$ne": 2}})) == ([0], [])
    connection.execute("SAVEPOINT dropping")
    connection.execute("DELETE FROM collections WHERE key = 1")
    tables = {
        table: connection.execute(f"SELECT count(*) FROM {table} {where}").fetchone()
        for table, where in (("fields", "WHERE collection = 1"), ("field_values", "WHERE document < 1000"))
    }
    connection.execute("ROLLBACK TO dropping")
    assert set(tables.values()) == {(0,)}


@pytest.mark.parametrize(
    ("filter_", "matching"),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"year": 2020}, [0]),
        ({"year": 2020.0}, [0]),
        ({"year": {"$gte": 2020, "$lt": 2022}}, [0, 1]),
        ({"year": {"$gte": 2020}, "lang": "en"}, [0, 2]),
        ({"tags": "x"}, [0, 1]),
        ({"tags": {"$ne": "x"}}, [2, 3, 4]),
        ({"author.name": "Ada"}, [1]),
        ({"author": {"$exists": True}}, [1, 3]),
        ({"author": None}, [3]),
        ({"flag": 1}, [3]),
        ({"flag": True}, [2]),
        ({"lang": {"$in": ["en", "fr"]}}, [0, 2, 3]),
        ({"lang": {"$nin": ["en", "fr"]}}, [1, 4]),
        ({"lang": {"$in": []}}, []),
        ({"lang": {"$not": {"$in": ["en"]}}}, [1, 3, 4]),
        ({"$or": [{"year": 2021}, {"lang": "fr"}]}, [1, 3]),
        ({"$not": {"lang": "en", "year": 2020}}, [1, 2, 3, 4]),
    ],
)
def test_worked_examples(select, filter_, matching):
    library = [
        {"year": 2020, "lang": "en", "tags": ["x", "y"]},
        {"year": 2021, "tags": "x", "author": {"name": "Ada"}},
        {"year": 2022, "lang": "en", "flag": True},
        {"lang": "fr", "author": None, "flag": 1},
        {},
    ]
    assert select(filter_, library) == matching


def rows_of_the_documentation():
    """The cases in the table of `docs/collections.md`: metadata, a filter, and whether it matches."""
    cases = []
    table = DOCS.read_text().split("Each row of this table is a test:")[1].strip().split("\n\n")[0]
    for row in table.splitlines()[2:]:
        cells = row.split("|")[1:-1]
        (metadata,), matching, others = (
            [json.loads(code) for code in re.findall("`([^`]+)`", cell)] for cell in cells
        )
        cases += [(metadata, filter_, True) for filter_ in matching] + [
            (metadata, filter_, False) for filter_ in others
        ]
    return cases


@pytest.mark.parametrize(("metadata", "filter_", "matches"), rows_of_the_documentation())
def test_the_table_of_the_documentation(select, metadata, filter_, matches):
    assert select(filter_, [metadata]) == ([0] if matches else [])
    assert select({"$not": filter_}, [metadata]) == ([] if matches else [0])
    assert evaluate(filter_, metadata) is matches


def test_in_takes_thousands_of_values(select):
    many = [*range(0, 100_000, 2), *(f"s{i}" for i in range(50_000)), None, True]
    stored = [{"a": 99_998}, {"a": 99_997}, {"a": "s49999"}, {"a": "s50000"}, {"a": None}, {"a": False}, {}]
    assert select({"a": {"$in": many}}, stored) == [0, 2, 4]
    assert select({"a": {"$nin": many}}, stored) == [1, 3, 5, 6]


def test_the_largest_filters_run(select):
    """At both limits SQLite must still take the SQL."""
    broad = {f"f{i}": {"$ne": 1} for i in range((MAX_TERMS - 1) // 2)}
    assert select(broad, [{"f0": 2}, {f"f{len(broad) - 1}": 1}]) == [0]
    broad = {f"f{i}": None for i in range(MAX_TERMS - 1)}
    assert select(broad, [broad, {**broad, "f9": 1}]) == [0]
    broad = {"$or": [{"a": i} for i in range((MAX_TERMS - 1) // 2)]}
    assert select(broad, [{"a": len(broad["$or"]) - 1}, {"a": -1}]) == [0]
    for grouped in (
        lambda inner: {"$and": [inner, {"b": 1}]},
        lambda inner: {"$or": [inner]},
        lambda inner: {"b": 1, "$not": {"$or": [inner]}},
    ):
        deep, levels = {"a": 1}, 1
        while True:
            try:
                select(deep, [{"a": 1, "b": 1}, {}])
            except InvalidFilter as error:
                assert "nested deeper" in str(error)
                break
            deep, levels = grouped(deep), levels + 1
        assert levels >= MAX_DEPTH // 2


def test_too_many_terms_and_too_deep():
    with pytest.raises(InvalidFilter, match=f"more than {MAX_TERMS} terms"):
        compile_filter({"$or": [{"a": i} for i in range(MAX_TERMS)]})
    deep = {}
    for _ in range(5000):
        deep = {"$not": deep}
    with pytest.raises(InvalidFilter, match=f"deeper than {MAX_DEPTH} levels"):
        compile_filter(deep)
    operators = {"$eq": 1}
    for _ in range(5000):
        operators = {"$not": operators}
    with pytest.raises(InvalidFilter, match=f"deeper than {MAX_DEPTH} levels"):
        compile_filter({"a": operators})


@pytest.mark.parametrize(
    ("filter_", "said"),
    [
        ([], "filter must be an object"),
        ("lang = 'en'", "filter must be an object"),
        ({"year": {"$gt": 1, "$get": 2}}, r"filter.year: unknown operator '\$get'. Did you mean '\$gte?'"),
        ({"year": {"$regex": "x"}}, r"'\$regex'.* Known here: \$eq, \$ne, \$gt"),
        ({"$nor": []}, r"'\$nor'. Did you mean '\$or'"),
        ({"$gte": 3}, "belongs under a field"),
        ({"a": {"$and": []}}, "combines whole filters"),
        ({"author": {"name": "Ada"}}, "written with a dot"),
        ({"a": {}}, "has no operator"),
        ({"a": {"$gt": None}}, r"filter.a.\$gt takes a number or a string.*not null"),
        ({"a": {"$lt": True}}, "not true"),
        ({"a": {"$gte": [1]}}, "not a list"),
        ({"a": {"$gte": {}}}, "not an object"),
        ({"a": [1, 2]}, r"filter.a.\$eq takes .*not a list; .*'\$in'"),
        ({"a": {"$in": "xyz"}}, r"filter.a.\$in takes a list of values, not 'xyz'"),
        ({"a": {"$nin": [1, [2]]}}, r"filter.a.\$nin\[1\] takes"),
        ({"a": {"$exists": 1}}, "takes true or false, not 1"),
        ({"a": {"$not": 3}}, "takes operators"),
        ({"a": float("nan")}, "filter.a.* is nan; .*finite"),
        ({"a": {"$in": [float("inf")]}}, "finite"),
        ({"a": 2**63}, "beyond 64 bits"),
        ({"a": {"$in": [-(2**63) - 1]}}, "beyond 64 bits"),
        ({"a": {"$eq": b"x"}}, "takes a string"),
        ({"a": "x\0"}, "NUL"),
        ({"a": "\ud800"}, "surrogate"),
        ({"$and": []}, r"filter.\$and takes a list of one or more filters, not an empty list"),
        ({"$or": {"a": 1}}, "not an object"),
        ({"$or": [{"a": 1}, 5]}, r"filter.\$or\[1\] must be an object"),
        ({"$not": [1]}, r"filter.\$not must be an object"),
        ({"a\\b": 1}, r"backslash before 'b'; one stands before a dot, a dollar or a backslash"),
        ({"a\\": 1}, "backslash before ''"),
        ({"$ref": 1}, r"unknown operator '\$ref'.*written '\\\\\$ref'"),
        ({"a": {"$contains": 1}}, r"filter.a.\$contains takes a string, .*not 1"),
        ({"a": {"$icontains": ["a"]}}, r"\$icontains takes a string, a number"),
        ({"a\0": 1}, "cannot be filtered by"),
        ({"a\ud800": 1}, "cannot be filtered by"),
        ({"a..b": 1}, "empty part"),
        ({"": 1}, "empty part"),
        ({3: 1}, "key 3"),
        ({"a": {3: 1}}, "unknown operator 3"),
    ],
)
def test_errors_say_what_and_where(filter_, said):
    with pytest.raises(InvalidFilter, match=said):
        compile_filter(filter_)
