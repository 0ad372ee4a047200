"""The OpenAPI document: valid, complete, and true of the service."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from jsonschema import Draft202012Validator

from service.api.errors import speaks_openai
from service.api.middleware.observe import RANKING, SPARSE
from tests.support.servers import Server

Operation = tuple[str, str, dict[str, Any]]


@pytest.fixture(scope="module")
def document(small: Server) -> dict[str, Any]:
    return small.http.get("/openapi.json").json()


@pytest.fixture(scope="module")
def operations(document: dict[str, Any]) -> list[Operation]:
    return [(verb, path, told) for path, verbs in document["paths"].items() for verb, told in verbs.items()]


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        inner = [reference for item in value.values() for reference in references(item)]
        return inner + ([value["$ref"]] if isinstance(value.get("$ref"), str) else [])
    return [reference for item in value for reference in references(item)] if isinstance(value, list) else []


def test_it_is_valid(document: dict[str, Any], operations: list[Operation]) -> None:
    assert document["openapi"].startswith("3.1")
    assert document["info"]["title"] == "Millpond" and document["info"]["version"]
    schemas = document["components"]["schemas"]
    for name, schema in schemas.items():
        Draft202012Validator.check_schema(schema)
        for example in schema.get("examples", []):
            resolved = schema | {"components": document["components"]}
            assert list(Draft202012Validator(resolved).iter_errors(example)) == [], name
    for reference in references(document):
        _, components, kind, name = reference.split("/")
        assert components == "components" and name in document["components"][kind], reference
    names = [told["operationId"] for _, _, told in operations]
    assert len(set(names)) == len(names) > 10
    for _, path, told in operations:
        declared = {f"{{{name}}}" for name in _parameters(told, "path")}
        assert declared == {part for part in path.split("/") if part.startswith("{")}
        assert told["summary"] and told["responses"]


def test_links_lead_to_operations_and_their_parameters(operations: list[Operation]) -> None:
    by_id = {told["operationId"]: told for _, _, told in operations}
    linked = 0
    for _, _, told in operations:
        for response in told["responses"].values():
            for link in response.get("links", {}).values():
                target = by_id[link["operationId"]]
                assert set(link["parameters"]) == _parameters(target, "path")
                linked += 1
    assert linked > 50


def test_errors_are_told_in_the_shape_they_have(operations: list[Operation]) -> None:
    told = 0
    for _, path, operation in operations:
        for status, response in operation["responses"].items():
            if status >= "4":
                told += 1
                kind, model = (
                    ("application/json", "OpenAIProblem")
                    if speaks_openai(path)
                    else ("application/problem+json", "Problem")
                )
                assert response["content"] == {kind: {"schema": {"$ref": f"#/components/schemas/{model}"}}}
    assert told > 30


@pytest.mark.slow
def test_every_example_works(small: Server, document: dict[str, Any], operations: list[Operation]) -> None:
    worked = []
    # Creating comes before storing, storing before searching, and that before what takes documents or the name away.
    for verb, path, told in sorted(operations, key=_turn):
        if "requestBody" not in told:
            continue
        schema = told["requestBody"]["content"]["application/json"]["schema"]
        (reference, *_) = references(schema)
        examples = document["components"]["schemas"][reference.rsplit("/", 1)[1]]["examples"]
        for example in examples:
            answer = small.http.request(verb, path.format(name="default", alias="latest"), json=example)
            if path in RANKING | SPARSE:  # which no model here does; test_rerank.py and test_sparse.py have some
                assert answer.status_code == 424
                worked.append((path, None))
                continue
            assert answer.status_code in (200, 201), (path, answer.text)
            kind = answer.headers["content-type"]
            shown = told["responses"][str(answer.status_code)]["content"][kind]["schema"]
            resolved = shown | {"components": document["components"]}
            # JSON lines are told as one of them.
            values = [answer.json()] if kind == "application/json" else map(orjson.loads, answer.iter_lines())
            for value in values:
                assert list(Draft202012Validator(resolved).iter_errors(value)) == [], path
            worked.append((path, value))
    assert len({path for path, _ in worked}) == sum("requestBody" in told for _, _, told in operations)
    found = [answer for path, answer in worked if path.endswith("/search")]
    assert found and all(answer["hits"] for answer in found)
    for collection in small.http.get("/collections").json()["collections"]:
        small.http.delete(f"/collections/{collection['name']}")


def _parameters(told: dict[str, Any], where: str) -> set[str]:
    """The parameters that an operation has there, apart from those that many have."""
    return {each["name"] for each in told.get("parameters", []) if each.get("in") == where}


def _turn(operation: Operation) -> tuple[bool, ...]:
    verb, path, _ = operation
    last = path.endswith(("/metadata", "/delete", "/rename"))
    return verb != "put", last, path.endswith("/rename"), not path.endswith("/documents"), path.startswith("/aliases")


def test_docs(small: Server) -> None:
    page = small.http.get("/docs")
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    assert "/openapi.json" in page.text
