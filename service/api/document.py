"""The OpenAPI document beyond what routes say of themselves: what all operations share, and which leads to which."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, get_args

from fastapi import FastAPI

from service import config
from service.api.errors import speaks_openai
from service.api.middleware.open_requests import ALWAYS
from service.api.needs import Needs

JSON = dict[str, Any]

_EVERYWHERE: Final = (422, 503, 504)
_WITH_BODY: Final = (400, 413, 415)
_WITH_KEY: Final = (401, 429)
_OF_SCOPE: Final = 403
_DESCRIPTIONS: Final[Mapping[int, str]] = {
    400: "The body cannot be read as JSON in UTF-8",
    401: "No key, or none that is valid",
    403: "The key is for other scopes",
    413: "The body, a text or the number of texts is beyond a limit",
    415: "The body has a content-encoding that cannot be read here",
    422: "Invalid input",
    429: "The key has sent more than it may; try again after `Retry-After` seconds",
    503: "Nothing can be taken now, or the store cannot be used; try again after `Retry-After` seconds",
    504: "The request was not done within the time that it had",
}
"""What each error means that operations have in common."""
_HEADERS: Final[Mapping[str, JSON]] = {
    "Accept-Encoding": {"description": "The content-encodings that can be read.", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 0}},
    "WWW-Authenticate": {"description": "How to show a key (RFC 6750).", "schema": {"type": "string"}},
    "X-Request-Id": {
        "description": "The id of the request in logs and traces: that which it came with, or a new one.",
        "schema": {"type": "string"},
    },
}
_HEADERS_OF: Final = {
    401: "WWW-Authenticate",
    403: "WWW-Authenticate",
    415: "Accept-Encoding",
    429: "Retry-After",
    503: "Retry-After",
}
_TIMEOUT: Final = "X-Request-Timeout"
_PARAMETERS: Final[Mapping[str, JSON]] = {
    _TIMEOUT: {
        "name": _TIMEOUT,
        "in": "header",
        "description": "Seconds within which the request has to be answered; `server.request_timeout` at most.",
        "schema": {"type": "number", "exclusiveMinimum": 0},
    },
}
_OF_FASTAPI: Final = ("HTTPValidationError", "ValidationError")
"""Schemas of errors that are never sent."""

_COLLECTION: Final = "/collections/{name}"
_DOCUMENT: Final = f"{_COLLECTION}/documents/{{document_id}}"
_OF_COLLECTION: Final = (
    *(f"get {_COLLECTION}", f"post {_COLLECTION}/documents", f"post {_COLLECTION}/search"),
    *(f"post {_COLLECTION}/recommend", f"post {_COLLECTION}/copy", f"post {_COLLECTION}/rename"),
    *(f"post {_COLLECTION}/documents/{what}" for what in ("list", "count", "get", "metadata", "delete")),
    *(f"get {_COLLECTION}/export", f"post {_COLLECTION}/reindex", f"delete {_COLLECTION}"),
)
"""What can be asked of a collection by its name alone."""
_NAMED: Final = "$request.path.name"
_Link = tuple[tuple[str, ...], Mapping[str, str]]
_LINKS: Final[Mapping[str, tuple[_Link, ...]]] = {
    f"put {_COLLECTION}": ((_OF_COLLECTION, {"name": "$response.body#/name"}),),
    "get /collections": ((_OF_COLLECTION, {"name": "$response.body#/collections/0/name"}),),
    f"post {_COLLECTION}/copy": ((_OF_COLLECTION, {"name": "$response.body#/name"}),),
    f"post {_COLLECTION}/rename": ((_OF_COLLECTION, {"name": "$response.body#/name"}),),
    f"post {_COLLECTION}/documents": (
        (
            (f"get {_DOCUMENT}", f"delete {_DOCUMENT}"),
            {"name": _NAMED, "document_id": "$request.body#/documents/0/id"},
        ),
        ((f"post {_COLLECTION}/search", f"post {_COLLECTION}/documents/list"), {"name": _NAMED}),
    ),
    f"post {_COLLECTION}/search": (
        ((f"get {_DOCUMENT}",), {"name": _NAMED, "document_id": "$response.body#/hits/0/id"}),
    ),
    f"post {_COLLECTION}/documents/list": (
        (
            (f"get {_DOCUMENT}", f"delete {_DOCUMENT}"),
            {"name": _NAMED, "document_id": "$response.body#/documents/0/id"},
        ),
    ),
    f"post {_COLLECTION}/reindex": (
        ((f"get {_COLLECTION}/reindex", f"delete {_COLLECTION}/reindex"), {"name": _NAMED}),
    ),
    "put /aliases/{alias}": (
        (("get /aliases/{alias}", "delete /aliases/{alias}"), {"alias": "$response.body#/alias"}),
        ((f"post {_COLLECTION}/search",), {"name": "$response.body#/alias"}),
    ),
    "get /aliases": (
        (("get /aliases/{alias}", "delete /aliases/{alias}"), {"alias": "$response.body#/aliases/0/alias"}),
    ),
    "get /v1/models": ((("get /v1/models/{name}",), {"name": "$response.body#/data/0/id"}),),
}
"""For each operation the ones that it leads to, and where their parameters come from."""


def complete(app: FastAPI, needs: Needs | None) -> None:
    """Complete the OpenAPI document of an application.

    Args:
        app: the application.
        needs: what its routes need; None where no request needs a key.
    """
    build: Callable[[], JSON] = app.openapi

    def openapi() -> JSON:
        if app.openapi_schema is None:
            _complete(build(), needs)
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _complete(document: JSON, needs: Needs | None) -> None:
    components = document["components"]
    components["headers"] = dict(_HEADERS)
    components["parameters"] = dict(_PARAMETERS)
    for name in _OF_FASTAPI:
        components["schemas"].pop(name, None)
    if needs is not None:
        bearer = {"type": "http", "scheme": "bearer", "description": "An API key of this service."}
        components["securitySchemes"] = {"key": bearer}
    operations = {
        f"{method} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    for name, operation in operations.items():
        method, path = name.split(" ", 1)
        need = "nothing" if needs is None else needs.of({"type": "http", "method": method.upper(), "path": path})
        scoped = need in get_args(config.Scope)
        if need != "nothing":
            operation["security"] = [{"key": [need] if scoped else []}]
        if path not in ALWAYS:
            operation.setdefault("parameters", []).append({"$ref": f"#/components/parameters/{_TIMEOUT}"})
        _complete_responses(path, operation, [*_statuses(path, operation, need != "nothing", scoped)])
        _link(name, operation, operations)


def _statuses(path: str, operation: JSON, keyed: bool, scoped: bool) -> Iterator[int]:
    """Yield the errors that an operation may have whatever its route does."""
    if path not in ALWAYS:
        yield from _EVERYWHERE
    if "requestBody" in operation:
        yield from _WITH_BODY
    if keyed:
        yield from _WITH_KEY
    if scoped:
        yield _OF_SCOPE


def _complete_responses(path: str, operation: JSON, statuses: list[int]) -> None:
    """Add the errors that an operation may have, in the shape of its path, beside those that its route tells."""
    told: JSON = operation["responses"]
    openai = speaks_openai(path)
    media_type, schema = ("application/json", "OpenAIProblem") if openai else ("application/problem+json", "Problem")
    for status in statuses:
        if openai and status < 500:
            continue  # `4XX`
        if status == 422 or str(status) not in told:  # FastAPI tells of a 422 of its own
            told[str(status)] = {"description": _DESCRIPTIONS[status]}
    for key, response in told.items():
        if key >= "4":
            response["content"] = {media_type: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
        headers = response.setdefault("headers", {})
        for header in filter(None, (_HEADERS_OF.get(int(key)) if key.isdigit() else None, "X-Request-Id")):
            headers[header] = {"$ref": f"#/components/headers/{header}"}
    operation["responses"] = dict(sorted(told.items()))


def _link(name: str, operation: JSON, operations: Mapping[str, JSON]) -> None:
    """Tell in the successful responses of an operation which others they lead to."""
    links = {
        operations[target]["operationId"]: {
            "operationId": operations[target]["operationId"],
            "parameters": dict(given),
        }
        for targets, given in _LINKS.get(name, ())
        for target in targets
    }
    for status, response in operation["responses"].items():
        if links and status < "3":
            response["links"] = links
