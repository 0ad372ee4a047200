"""Filters over HTTP: numbers stay what was sent, and what can match nothing is said."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.support.problems import problem

JSON = {"content-type": "application/json"}
UNIT = [1.0] + [0.0] * 383
SHELF = [
    {"id": "1", "text": "a mill", "metadata": {"year": 2020, "a.b": 1, "authors": [{"name": "Ada"}, {"name": "Bo"}]}},
    {"id": "2", "text": "a pond", "metadata": {"year": 2021, "$ref": "x", "flag": True, "none": None, "tags": []}},
    {"id": "3", "text": "a boat", "metadata": {"title": "Die Mühle", 'say "hi"': 1, "size": {"width": 3}}},
]


@pytest.fixture
def shelf(http: httpx.Client, collection: str) -> str:
    assert http.post(f"{collection}/documents", json={"documents": SHELF}).status_code == 200
    return collection


def search(http: httpx.Client, collection: str, condition: Any) -> dict[str, Any]:
    response = http.post(f"{collection}/search", json={"vector": UNIT, "include": [], "filter": condition})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ({"a\\.b": 1}, "1"),
        ({"authors.name": "Bo"}, "1"),
        ({"\\$ref": "x"}, "2"),
        ({'say "hi"': 1}, "3"),
        ({"title": {"$contains": "Müh"}}, "3"),
        ({"title": {"$icontains": "MÜHLE"}}, "3"),
        ({"year": {"$gte": 2020, "$lt": 2021}}, "1"),
        ({"year": {"$ne": 2020}}, "23"),
    ],
)
def test_what_is_found_without_a_warning(http: httpx.Client, shelf: str, condition: Any, found: str) -> None:
    answer = search(http, shelf, condition)
    assert sorted(hit["id"] for hit in answer["hits"]) == list(found)
    assert answer.keys() == {"hits"}


@pytest.mark.parametrize(
    ("condition", "found", "warnings"),
    [
        ({"yaer": 2020}, "", ["no document has the field 'yaer'. Did you mean 'year'?"]),
        ({"yaer": {"$ne": 2020}}, "123", ["no document has the field 'yaer'. Did you mean 'year'?"]),
        ({"a.b": 1}, "", ["no document has the field 'a.b'. Did you mean 'a\\\\.b'?"]),
        ({"authors.nmae": "Bo"}, "", ["no document has the field 'authors.nmae'. Did you mean 'authors.name'?"]),
        ({"zzzzzz": {"$exists": True}}, "", ["no document has the field 'zzzzzz'."]),
        ({"year": "2020"}, "", ["no document has a string in the field 'year', but a number."]),
        ({"flag": 1}, "", ["no document has a number in the field 'flag', but true or false."]),
        ({"flag": None}, "", ["no document has null in the field 'flag', but true or false."]),
        ({"size": {"$gt": 2}}, "", ["no document has a number in the field 'size', but an object."]),
        ({"tags": "x"}, "", ["no document has a string in the field 'tags', but an empty list or one in a list."]),
        (
            {"title": {"$in": [1, True]}},
            "",
            ["no document has true or false or a number in the field 'title', but a string."],
        ),
        ({"year": {"$contains": "20"}}, "", ["no document has a string in the field 'year', but a number."]),
        (
            {"$or": [{"yaer": 1}, {"year": 2020}, {"yaer": 2}, {"$not": {"titel": "x"}}]},
            "123",
            [
                "no document has the field 'yaer'. Did you mean 'year'?",
                "no document has the field 'titel'. Did you mean 'title'?",
            ],
        ),
        ({"title": {"$in": [1, "x"]}}, "", None),
        ({"year": 1999}, "", None),
        ({"year": {"$in": []}}, "", None),
    ],
)
def test_what_can_match_nothing_is_said(
    http: httpx.Client, shelf: str, condition: Any, found: str, warnings: list[str] | None
) -> None:
    answer = search(http, shelf, condition)
    assert ("".join(sorted(hit["id"] for hit in answer["hits"])), answer.get("warnings")) == (found, warnings)
    asked = {"queries": ["a", "b"], "include": [], "filter": condition}
    assert http.post(f"{shelf}/search", json=asked).json().get("warnings") == warnings
    listed = http.post(f"{shelf}/documents/list", json={"filter": condition}).json()
    counted = http.post(f"{shelf}/documents/count", json={"filter": condition}).json()
    assert listed.get("warnings") == counted.get("warnings") == warnings
    assert counted["count"] == len(listed["documents"]) == len(found)


def test_a_change_says_what_it_cannot_match(http: httpx.Client, shelf: str) -> None:
    asked = {"filter": {"yaer": 2021}}
    said = ["no document has the field 'yaer'. Did you mean 'year'?"]
    told = http.post(f"{shelf}/documents/metadata", json=asked | {"merge": {"a": 1}}).json()
    assert told == {"updated": 0, "missing": [], "warnings": said}
    assert http.post(f"{shelf}/documents/delete", json=asked).json() == {
        "deleted": 0,
        "missing": [],
        "warnings": said,
    }
    asked = {"filter": {"title": {"$exists": True}}}
    assert (
        "warnings" not in http.post(f"{shelf}/documents/delete", json=asked).json()
    )  # though none has it from now on


def test_a_field_that_no_document_has_any_more(http: httpx.Client, shelf: str) -> None:
    assert "warnings" not in search(http, shelf, {"title": "x"})
    assert http.delete(f"{shelf}/documents/3").status_code == 204
    replaced = {"id": "2", "text": "a pond", "metadata": {"years": 1}}
    assert http.post(f"{shelf}/documents", json={"documents": [replaced]}).status_code == 200
    assert search(http, shelf, {"title": "x"})["warnings"] == ["no document has the field 'title'."]
    assert search(http, shelf, {"flag": True})["warnings"] == ["no document has the field 'flag'."]
    assert [hit["id"] for hit in search(http, shelf, {"year": {"$gte": 0}})["hits"]] == ["1"]
    assert [hit["id"] for hit in search(http, shelf, {"year": {"$exists": False}})["hits"]] == ["2"]


def test_a_field_in_another_case_is_suggested(http: httpx.Client, shelf: str) -> None:
    assert search(http, shelf, {"YEAR": {"$gt": 1}})["warnings"] == [
        "no document has the field 'YEAR'. Did you mean 'year'?"
    ]


@pytest.mark.parametrize(
    ("number", "word"),
    [
        ("123456789012345678901234567890", "integer beyond 64 bits"),
        ("9223372036854775808", "integer beyond 64 bits"),
        ("-9223372036854775809", "integer beyond 64 bits"),
        ("7" * 5000, "integer beyond 64 bits"),
        ("1e999", "finite"),
        ("-1e999", "finite"),
    ],
)
def test_numbers_that_cannot_be_kept(http: httpx.Client, collection: str, number: str, word: str) -> None:
    for metadata, path in (('{"n": %s}', "metadata.n"), ('{"a": [{"n": 1}, {"n": %s}]}', "metadata.a[1].n")):
        good = '{"id": "0", "text": "a", "metadata": {"n": 9223372036854775807, "x": "99999999999999999999"}}'
        bad = '{"id": "bad", "text": "a", "metadata": %s}' % (metadata % number)
        body = f'{{"documents": [{good}, {bad}]}}'
        problem(http.post(f"{collection}/documents", content=body, headers=JSON), 422, word, "'bad'", path)
    body = f'{{"query": "a", "filter": {{"n": {{"$in": [1, {number}]}}}}}}'
    problem(http.post(f"{collection}/search", content=body, headers=JSON), 422, word, "filter.n.$in[1]")
    body = f'{{"query": "a", "k": {number}}}'
    problem(http.post(f"{collection}/search", content=body, headers=JSON), 422, "k: ")
    assert http.get(collection).json()["count"] == 0


def test_integers_are_exact_to_the_last_bit(http: httpx.Client, collection: str) -> None:
    ends = {"least": -(2**63), "most": 2**63 - 1, "odd": 2**53 + 1}
    documents = [{"id": name, "text": name, "metadata": {"n": number}} for name, number in ends.items()]
    assert http.post(f"{collection}/documents", json={"documents": documents}).status_code == 200
    for name, number in ends.items():
        assert [hit["id"] for hit in search(http, collection, {"n": number})["hits"]] == [name]
        assert http.get(f"{collection}/documents/{name}").json()["metadata"] == {"n": number}
    assert search(http, collection, {"n": {"$in": [2**53, 2**63 - 2]}})["hits"] == []


def test_a_vector_may_be_written_in_integers_and_not_beyond_floats(http: httpx.Client, collection: str) -> None:
    """As before integers were kept."""
    post = f"{collection}/search"
    numbers = ["100000000000000000000"] + ["0"] * 383
    body = f'{{"vector": [{", ".join(numbers)}]}}'
    assert http.post(post, content=body, headers=JSON).json() == {"hits": []}
    for number in ("1e999", "7" * 400):
        body = f'{{"vector": [{", ".join([number, *numbers[1:]])}]}}'
        problem(http.post(post, content=body, headers=JSON), 422, "vector[0]")
