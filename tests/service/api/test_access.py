"""Who may call the service: keys, their scopes and limits, on every route; hosts, origins and prefixes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.routing import Route

from service.access import Keyring, digest, new_key
from service.api import create_app
from service.api.errors import speaks_openai
from service.api.needs import Needs
from service.config import Config, Scope
from service.deployment import Deployment
from tests.support.applications import application, ask
from tests.support.problems import openai_problem, problem

KEYS = {
    name: f"millpond_{digest(name)}" for name in ("embed", "search", "write", "admin", "none", "expired", "revoked")
}
"""The same in each process of the tests, whose names they are a part of."""
CONFIGURED = {
    **{name: {"hash": digest(key), "scopes": [name]} for name, key in KEYS.items() if name in get_args(Scope)},
    "none": {"hash": digest(KEYS["none"]), "scopes": []},
    "expired": {"hash": digest(KEYS["expired"]), "scopes": ["admin"], "expires": "2020-01-01"},
}


@pytest.fixture(scope="module")
def locked(tiny: Deployment) -> FastAPI:
    return application(tiny, access={"keys": CONFIGURED})


def routes(app: FastAPI) -> list[tuple[str, Route]]:
    """Method and route of everything that the application answers."""
    found = []
    for context in iter_route_contexts(app.routes):
        route = context.original_route
        assert isinstance(route, Route), f"{route} is no route, and no key is asked for it"
        found += [(method, route) for method in sorted(route.methods or ()) if method != "HEAD"]
    return found


def test_every_route_has_a_scope_or_is_open(locked: FastAPI) -> None:
    all_routes = routes(locked)
    assert len(all_routes) > 30
    undecided = [f"{method} {route.path}" for method, route in all_routes if not Needs.is_listed(method, route)]
    assert not undecided, "decide what they need, in service/api/needs.py"


def test_refused_requests_are_counted_under_their_route(locked: FastAPI) -> None:
    before = sum(_refused(locked).values())
    for method, path in (
        ("POST", "/embed"),
        ("HEAD", "/info"),
        ("GET", "/collections/a"),
        ("GET", "/none"),
    ):
        assert ask(locked, method, path).status_code == 401
    counted = _refused(locked)
    assert sum(counted.values()) == before + 4
    assert {"/embed", "/info", "/collections/{name}", "unknown"} <= counted.keys()


def _refused(app: FastAPI) -> dict[str, float]:
    """The requests without a valid key that were counted so far, by their route."""
    found: dict[str, float] = {}
    for family in app.state.metrics.collect():
        for sample in family.samples:
            if sample.name == "millpond_http_requests_total" and sample.labels["status"] == "401":
                route = sample.labels["route"]
                found[route] = found.get(route, 0) + sample.value
    return found


def test_every_route_is_found_as_what_it_is(locked: FastAPI) -> None:
    """No path of one route has the scope of another one that is tried before it."""
    needs = Needs(locked.state.routes, open_metrics=False)
    for method, route in routes(locked):
        path = route.path_format.format(**dict.fromkeys(route.param_convertors, "x"))
        assert needs.of({"type": "http", "method": method, "path": path}) == needs.of_route(method, route), path


def test_every_route_wants_a_key_unless_it_is_open(locked: FastAPI) -> None:
    opened = {f"GET {path}" for path in ("/", "/health", "/ready", "/ping", "/docs", "/docs/{file}", "/redoc")}
    opened |= {"GET /openapi.json", "GET /lab", "GET /lab/", "GET /lab/{file}"}
    for method, route in routes(locked):
        path = route.path_format.format(**dict.fromkeys(route.param_convertors, "x"))
        answer = ask(locked, method, path)
        assert (answer.status_code == 401) is (f"{method} {route.path}" not in opened), (method, route.path)
        if answer.status_code == 401:
            check = openai_problem if speaks_openai(path) else problem
            assert check(answer, 401, "authorization: Bearer KEY")["code"] == "missing_api_key"
            assert answer.headers["www-authenticate"] == 'Bearer realm="millpond"'


@pytest.mark.parametrize("name", ["wrong", "expired", "revoked"])
@pytest.mark.parametrize("path", ["/embed", "/compact", "/v1/embeddings"])
def test_a_key_that_is_none(locked: FastAPI, name: str, path: str) -> None:
    answer = ask(locked, "POST", path, KEYS.get(name, "wrong"), json={})
    check = openai_problem if path.startswith("/v1/") else problem
    told = check(answer, 401, "has expired" if name == "expired" else "no key of the service")
    assert told["code"] == "invalid_api_key"
    assert answer.headers["www-authenticate"] == 'Bearer realm="millpond", error="invalid_token"'
    assert KEYS.get(name, "wrong") not in answer.text


@pytest.mark.parametrize(
    "header", ["Basic bTpt", "Bearer", "Bearer ", KEYS["admin"], f"Bearer{KEYS['admin']}", f"Token {KEYS['admin']}"]
)
def test_a_header_that_shows_no_key(locked: FastAPI, header: str) -> None:
    answer = ask(locked, "GET", "/info", headers={"authorization": header})
    assert problem(answer, 401)["code"] == "missing_api_key"


@pytest.mark.parametrize("header", ["Bearer {}", "bearer {}", "BEARER   {} "])
def test_how_a_key_is_shown(locked: FastAPI, header: str) -> None:
    assert ask(locked, "GET", "/info", headers={"authorization": header.format(KEYS["none"])}).status_code == 200


REQUESTS: list[tuple[str, str, str, Any]] = [
    ("embed", "POST", "/embed", {"inputs": "a"}),
    ("embed", "POST", "/v1/embeddings", {"model": "default", "input": "a"}),
    ("embed", "POST", "/explain", {"text": "a"}),
    ("write", "PUT", "/collections/default", {}),
    ("write", "POST", "/collections/default/documents", {"documents": [{"id": "a", "text": "a"}]}),
    ("search", "POST", "/search", {"query": "a"}),
    ("search", "GET", "/collections/default/documents/a", None),
    ("search", "POST", "/collections/default/documents/count", {}),
    ("search", "GET", "/collections/default/export", None),
    ("write", "DELETE", "/collections/default/documents/a", None),
    ("admin", "POST", "/compact", {}),
    ("admin", "POST", "/admin/reload", None),
    ("write", "DELETE", "/collections/default", None),
]


def test_scopes(locked: FastAPI) -> None:
    """Each request is answered with a key of its scope, and with one of all scopes; refused with all others."""
    for scope, method, path, body in REQUESTS:
        for other in ("none", *get_args(Scope)):
            if other in (scope, "admin"):
                continue
            answer = ask(locked, method, path, KEYS[other], json=body)
            check = openai_problem if path.startswith("/v1/") else problem
            assert check(answer, 403, f"needs {scope}", repr(other))["code"] == "insufficient_scope"
            assert answer.headers["www-authenticate"].endswith('error="insufficient_scope"')
        assert ask(locked, method, path, KEYS[scope], json=body).is_success, path


def test_admin_may_do_everything(locked: FastAPI) -> None:
    for _, method, path, body in REQUESTS:
        assert ask(locked, method, path, KEYS["admin"], json=body).is_success, path


def test_any_key_may_ask_what_is_served(locked: FastAPI) -> None:
    for path in ("/info", "/v1/models", "/v1/models/default"):
        assert ask(locked, "GET", path, KEYS["none"]).status_code == 200
    problem(ask(locked, "GET", "/nowhere", KEYS["none"]), 404)
    problem(ask(locked, "GET", "/nowhere"), 401)
    problem(ask(locked, "DELETE", "/embed"), 401)


def test_an_open_path_needs_no_key_to_refuse_a_method(locked: FastAPI) -> None:
    problem(ask(locked, "DELETE", "/health"), 405)


def test_a_key_is_asked_for_before_the_body_is_read(locked: FastAPI) -> None:
    async def never() -> Any:
        raise AssertionError("the body is read")
        yield b""

    assert ask(locked, "POST", "/embed", content=never()).status_code == 401


def test_head_and_options_under_keys(locked: FastAPI) -> None:
    assert ask(locked, "HEAD", "/health").status_code == 200
    assert ask(locked, "HEAD", "/info").status_code == 401
    assert ask(locked, "HEAD", "/info", KEYS["none"]).status_code == 200
    assert ask(locked, "OPTIONS", "/info").status_code == 204


def test_rates(tiny: Deployment) -> None:
    key = new_key()
    limited = application(
        tiny, access={"keys": {"mine": {"hash": digest(key), "scopes": ["embed"], "requests_per_minute": 2}}}
    )
    body = {"model": "default", "input": "a"}
    assert ask(limited, "GET", "/info", key).status_code == 200
    problem(ask(limited, "POST", "/compact", key), 403)  # which costs nothing
    assert ask(limited, "POST", "/v1/embeddings", key, json=body).status_code == 200
    answer = ask(limited, "POST", "/v1/embeddings", key, json=body)
    assert openai_problem(answer, 429, "'mine'", "2 requests a minute")["code"] == "rate_limit_exceeded"
    assert 20 <= int(answer.headers["retry-after"]) <= 30
    assert problem(ask(limited, "GET", "/info", key), 429)["code"] == "rate_limit_exceeded"
    assert ask(limited, "GET", "/health").status_code == 200


@pytest.mark.slow
def test_token_quotas(tiny: Deployment) -> None:
    """What the answers say was used is what is counted, of queries and documents too."""
    key = new_key()
    about = {"hash": digest(key), "scopes": ["embed", "write", "search"]}

    def limited(tokens: int) -> FastAPI:
        return application(tiny, access={"keys": {"mine": about | {"tokens_per_day": tokens}}})

    body = {"model": "default", "input": ["one two three", "four"]}
    used = ask(limited(10**6), "POST", "/v1/embeddings", key, json=body).json()["usage"]["total_tokens"]
    assert used > 4
    exact = limited(2 * used)
    for _ in range(2):
        assert ask(exact, "POST", "/v1/embeddings", key, json=body).status_code == 200
    answer = ask(exact, "POST", "/v1/embeddings", key, json=body)
    assert openai_problem(answer, 429, f"its {2 * used} tokens a day")["code"] == "token_quota_exceeded"
    assert int(answer.headers["retry-after"]) <= 86_400 / (2 * used) + 1
    assert ask(limited(2 * used + 1), "POST", "/v1/embeddings", key, json=body).status_code == 200

    for method, path, each in (
        ("PUT", "/collections/quota", {}),
        ("POST", "/collections/quota/documents", {"documents": [{"id": "a", "text": "one two three"}]}),
        ("POST", "/collections/quota/search", {"query": "one two three"}),
        ("POST", "/embed_all", {"inputs": "one two three"}),
        ("DELETE", "/collections/quota", None),
    ):
        small = limited(1)
        assert ask(small, method, path, key, json=each).is_success
        counted = ask(small, "GET", "/info", key).status_code == 429
        assert counted is (each not in ({}, None)), path


def test_the_openapi_document_tells_of_keys(tiny: Deployment, locked: FastAPI) -> None:
    document = ask(locked, "GET", "/openapi.json").json()
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    told = {
        (method, path): operation.get("security")
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    assert told["get", "/health"] is None and told["get", "/info"] == [{"key": []}]
    assert told["delete", "/collections/{name}/documents/{document_id}"] == [{"key": ["write"]}]
    assert "securitySchemes" not in ask(application(tiny), "GET", "/openapi.json").json()["components"]


@pytest.mark.parametrize(("open_metrics", "need"), [(False, "key"), (True, "nothing")])
def test_metrics_can_be_open(locked: FastAPI, open_metrics: bool, need: str) -> None:
    needs = Needs(locked.state.routes, open_metrics=open_metrics)
    assert needs.of_route("GET", Route("/metrics", endpoint=ask)) == need


def test_keys_that_a_file_brings_and_takes(tiny: Deployment, tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    one, other = new_key(), new_key()
    file.write_text(yaml.safe_dump({"one": {"hash": digest(one), "scopes": ["embed"]}}))
    config = Config.model_validate(tiny.config.model_dump() | {"access": {"keys_file": file}})
    keys = Keyring(config.access)
    locked = create_app(replace(tiny, config=config, keys=keys))
    assert [ask(locked, "GET", "/info", key).status_code for key in (one, other)] == [200, 401]
    file.write_text(yaml.safe_dump({"other": {"hash": digest(other), "scopes": ["embed"]}}))
    keys.reload()
    assert [ask(locked, "GET", "/info", key).status_code for key in (one, other)] == [401, 200]
