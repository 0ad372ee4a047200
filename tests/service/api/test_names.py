"""Collections renamed, copied and reached by aliases, over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.support.problems import problem

DOCUMENTS = [
    {"id": "harp", "text": "A man is playing a harp.", "metadata": {"year": 2012}},
    {"id": "cat", "text": "A cat sleeps in the sun.", "metadata": {}},
]


@pytest.fixture
def name(http: httpx.Client) -> Iterator[str]:
    """The name of a collection with two documents; it, and all that begin so, are dropped at the end."""
    name = f"test-{uuid4().hex[:12]}"
    assert http.put(f"/collections/{name}").status_code == 201
    assert http.post(f"/collections/{name}/documents", json={"documents": DOCUMENTS}).status_code == 200
    yield name
    for collection in http.get("/collections").json()["collections"]:
        if collection["name"].startswith(name):
            http.delete(f"/collections/{collection['name']}")


def listed(http: httpx.Client, name: str) -> Any:
    return http.post(f"/collections/{name}/documents/list", json={"include": ["text", "metadata", "vector"]}).json()


def found(http: httpx.Client, name: str) -> list[str]:
    answer = http.post(f"/collections/{name}/search", json={"query": "music"})
    return [hit["id"] for hit in answer.json()["hits"]]


def test_renamed_it_is_the_same_under_another_name(http: httpx.Client, name: str) -> None:
    before = http.get(f"/collections/{name}").json()
    cursor = http.post(f"/collections/{name}/documents/list", json={"limit": 1}).json()["cursor"]
    http.put(f"/aliases/{name}.live", json={"collection": name})
    renamed = http.post(f"/collections/{name}/rename", json={"to": f"{name}.2"})
    assert renamed.status_code == 200
    assert renamed.json() == before | {"name": f"{name}.2", "aliases": [f"{name}.live"]}
    problem(http.get(f"/collections/{name}"), 404, name)
    assert found(http, f"{name}.2") == found(http, f"{name}.live") == ["harp", "cat"]
    rest = http.post(f"/collections/{name}.2/documents/list", json={"cursor": cursor}).json()
    assert [document["id"] for document in rest["documents"]] == ["cat"]
    assert http.put(f"/collections/{name}").status_code == 201  # the name is free again


def test_a_copy_is_equal_and_apart(http: httpx.Client, name: str) -> None:
    before = http.get(f"/collections/{name}").json()
    copied = http.post(f"/collections/{name}/copy", json={"to": f"{name}.2"})
    assert copied.status_code == 201
    same = before.keys() - {"name", "created"}
    assert {key: copied.json()[key] for key in same} == {key: before[key] for key in same}
    assert listed(http, f"{name}.2") == listed(http, name)
    assert found(http, f"{name}.2") == found(http, name)
    http.delete(f"/collections/{name}/documents/harp")
    http.post(f"/collections/{name}.2/documents/metadata", json={"all": True, "replace": {"copy": True}})
    assert found(http, name) == ["cat"] and found(http, f"{name}.2") == ["harp", "cat"]
    assert http.get(f"/collections/{name}/documents/cat").json() == DOCUMENTS[1]
    # What is stored in the copy is known there.
    answer = http.post(
        f"/collections/{name}.2/documents", json={"documents": [DOCUMENTS[0] | {"metadata": {"copy": True}}]}
    )
    assert answer.json() == {"upserted": 1, "unchanged": 1}


def test_a_copy_of_a_chunked_collection(http: httpx.Client, name: str) -> None:
    http.put(f"/collections/{name}.cut", json={"chunking": {"by": "sentence"}})
    documents = [{"id": "1", "text": "A man plays. A cat sleeps."}, {"id": "2", "text": "Bread is baked."}]
    http.post(f"/collections/{name}.cut/documents", json={"documents": documents})
    http.post(f"/collections/{name}.cut/documents", json={"documents": [documents[0] | {"text": "A dog. A cat."}]})
    copied = http.post(f"/collections/{name}.cut/copy", json={"to": f"{name}.cut2"}).json()
    assert (copied["count"], copied["chunks"]) == (2, 3)
    assert listed(http, f"{name}.cut2") == listed(http, f"{name}.cut")
    body = {"query": "a cat", "k": 10}
    first = http.post(f"/collections/{name}.cut/search", json=body).json()
    assert http.post(f"/collections/{name}.cut2/search", json=body).json() == first


def test_an_alias_works_wherever_a_name_does(http: httpx.Client, name: str) -> None:
    alias = f"{name}.live"
    made = http.put(f"/aliases/{alias}", json={"collection": name})
    assert (made.status_code, made.json()) == (201, {"alias": alias, "collection": name})
    assert http.get(f"/aliases/{alias}").json() == made.json()
    assert made.json() in http.get("/aliases").json()["aliases"]
    path = f"/collections/{alias}"
    assert http.get(path).json() == http.get(f"/collections/{name}").json()
    assert http.get(path).json()["aliases"] == [alias]
    assert listed(http, alias) == listed(http, name)
    assert http.post(f"{path}/documents", json={"documents": DOCUMENTS}).json() == {"upserted": 2, "unchanged": 2}
    assert http.get(f"{path}/documents/cat").json() == DOCUMENTS[1]
    assert http.delete(f"{path}/documents/cat").status_code == 204
    assert found(http, alias) == ["harp"]
    assert http.post(f"{path}/reindex", json={}).json()["state"] == "unneeded"
    again = http.put(f"/aliases/{alias}.2", json={"collection": alias})  # it stands for the collection itself
    assert again.json() == {"alias": f"{alias}.2", "collection": name}
    assert http.delete(f"/aliases/{alias}").status_code == 204
    problem(http.get(path), 404, alias)
    problem(http.delete(f"/aliases/{alias}"), 404, f"no alias '{alias}'")
    problem(http.get(f"/aliases/{alias}"), 404, f"no alias '{alias}'")
    problem(http.get(f"/aliases/{name}"), 404, f"no alias '{name}'")
    assert found(http, f"{alias}.2") == ["harp"]


def test_an_alias_is_swapped(http: httpx.Client, name: str) -> None:
    alias = f"{name}.live"
    http.put(f"/collections/{name}.2")
    http.put(f"/aliases/{alias}", json={"collection": name})
    assert found(http, alias) == ["harp", "cat"]
    swapped = http.put(f"/aliases/{alias}", json={"collection": f"{name}.2"})
    assert (swapped.status_code, swapped.json()["collection"]) == (200, f"{name}.2")
    assert found(http, alias) == []
    assert http.get(f"/collections/{name}").json()["aliases"] == []
    assert http.delete(f"/collections/{name}.2").status_code == 204  # and its alias with it
    problem(http.get(f"/aliases/{alias}"), 404, alias)


def test_a_name_is_a_collection_or_an_alias(http: httpx.Client, name: str) -> None:
    alias = f"{name}.live"
    http.put(f"/aliases/{alias}", json={"collection": name})
    before = http.get("/collections").json()
    taken = problem(http.put(f"/collections/{alias}"), 409, f"'{alias}' is an alias of collection '{name}'")
    assert taken["code"] == "name_conflict"
    problem(http.put(f"/aliases/{name}", json={"collection": alias}), 409, f"'{name}' is the name of a collection")
    for to in (name, alias):
        problem(http.post(f"/collections/{name}/rename", json={"to": to}), 409, to, "choose another name")
        problem(http.post(f"/collections/{name}/copy", json={"to": to}), 409, to, "choose another name")
    problem(http.delete(f"/collections/{alias}"), 409, "Name the collection itself")
    problem(http.post(f"/collections/{alias}/rename", json={"to": f"{name}.3"}), 409, "Name the collection itself")
    assert http.get("/collections").json() == before
    assert http.post(f"/collections/{alias}/copy", json={"to": f"{name}.3"}).status_code == 201


@pytest.mark.parametrize("bad", ["", ".", "-a", "a/b", "a b", "é", "x" * 129])
def test_names_that_cannot_be(http: httpx.Client, name: str, bad: str) -> None:
    for route in ("rename", "copy"):
        problem(http.post(f"/collections/{name}/{route}", json={"to": bad}), 422, "1 to 128 of the characters")


@pytest.mark.parametrize(
    ("verb", "path", "body", "status", "words"),
    [
        ("POST", "/collections/nowhere/rename", {"to": "b"}, 404, ["nowhere", "create it first"]),
        ("POST", "/collections/nowhere/copy", {"to": "b"}, 404, ["nowhere", "create it first"]),
        ("PUT", "/aliases/live", {"collection": "nowhere"}, 404, ["nowhere", "create it first"]),
        ("PUT", "/aliases/-live", {"collection": "nowhere"}, 422, ["1 to 128 of the characters"]),
        ("PUT", "/aliases/live", {"name": "nowhere"}, 422, ["'name' is not a field here"]),
        ("PUT", "/aliases/live", {}, 422, ["collection", "required"]),
        ("PUT", "/aliases/live", None, 422, ["JSON object"]),
        ("POST", "/collections/nowhere/copy", {"to": 5}, 422, ["to", "string"]),
        ("POST", "/collections/nowhere/rename", {}, 422, ["to", "required"]),
    ],
)
def test_bad_input(http: httpx.Client, verb: str, path: str, body: Any, status: int, words: list[str]) -> None:
    problem(http.request(verb, path, json=body), status, *words)


@pytest.mark.parametrize(
    ("method", "path", "body", "words", "field"),
    [
        ("PUT", "/aliases/é", {"collection": "any"}, "alias 'é': a name has 1 to 128", "alias"),
        ("POST", "/collections/NAME/copy", {"to": "é"}, "collection name 'é'", "to"),
        ("POST", "/collections/NAME/rename", {"to": "a b"}, "collection name 'a b'", "to"),
        ("PUT", "/collections/é", {}, "collection name 'é'", "name"),
    ],
)
def test_which_name_is_wrong_is_told(
    http: httpx.Client, name: str, method: str, path: str, body: dict[str, Any], words: str, field: str
) -> None:
    refused = problem(
        http.request(method, path.replace("NAME", name), json=body), 422, words, "begins with a letter or a digit"
    )
    assert refused["place"] == {"field": field}
