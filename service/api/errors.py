"""Error responses: problem documents (RFC 9457), which text-embeddings-inference's clients read too, and OpenAI's."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from pooling import EmptyTextError, PoolingError
from service.api.requests import NotJSON, place_of
from service.api.routing import path_below_root
from service.errors import EmptyInput, InvalidTokenIds, Place, ServiceError, shortened

logger = logging.getLogger(__name__)

_RESPONSES: Final[Mapping[str, tuple[int, str | None]]] = {
    "bad_request": (400, "Bad request"),
    "broken_model": (500, "Broken model"),
    "conflict": (409, None),
    "context_length_exceeded": (413, "Text too long"),
    "deadline_exceeded": (504, "Deadline exceeded"),
    "fingerprint_mismatch": (409, "Fingerprint mismatch"),
    "insufficient_scope": (403, "Key of another scope"),
    "invalid_api_key": (401, "Invalid key"),
    "invalid_configuration": (409, "Invalid configuration"),
    "invalid_input": (422, "Invalid input"),
    "keywords_unavailable": (409, "No keyword search"),
    "missing_api_key": (401, "No key"),
    "model_not_found": (404, "Unknown model"),
    "name_conflict": (409, None),
    "no_space": (507, None),
    "no_store": (501, "No store"),
    "not_found": (404, None),
    "rate_limit_exceeded": (429, "Too many requests"),
    "reindex_running": (409, "Reindex under way"),
    "request_too_large": (413, "Request too large"),
    "store_unavailable": (503, None),
    "token_quota_exceeded": (429, "Too many tokens"),
    "unavailable": (503, "Not available"),
    "unsupported_task": (424, "Unsupported task"),
    "unusable_checkpoint": (422, "Unusable checkpoint"),
}
"""HTTP status and title of each error code; None stands for the phrase of the status. Other codes get 422."""
_CHALLENGES: Final[Mapping[str, str]] = {
    "insufficient_scope": 'Bearer realm="millpond", error="insufficient_scope"',
    "invalid_api_key": 'Bearer realm="millpond", error="invalid_token"',
    "missing_api_key": 'Bearer realm="millpond"',
}
"""The header WWW-Authenticate of errors of keys (RFC 6750)."""
_TEI_TYPES: Final[Mapping[type, str]] = {EmptyInput: "Empty", InvalidTokenIds: "Tokenizer"}
_TEI_TYPES_BY_STATUS: Final = {424: "Backend", 429: "Overloaded", 500: "Backend", 503: "Overloaded", 507: "Backend"}
"""The kinds of error that text-embeddings-inference tells apart; all others are `Validation`."""
_OF_SEVERAL_FIELDS: Final = {
    **{"one_query": "query", "no_words": "query", "weights": "weights", "both": "positive"},
    "one_data_set": "data",
}
"""Errors of several fields together, and the field that is their place."""
# Pydantic inserts the branch of a union that it tried: `inputs`, `list[str]`, 3.
_UNION_BRANCH: Final = re.compile(r"^(str|int|float|bool|(list|dict|function|tagged|constrained|literal)\b.*)$")


def install(app: FastAPI) -> None:
    """Register a handler for every error that a route can raise."""
    for kind, handler in _HANDLERS.items():
        app.add_exception_handler(kind, handler)


async def respond(request: Request, error: Exception) -> Response:
    """Return the response to an error, as the application does where its own router leads to the route."""
    handler = next(_HANDLERS[kind] for kind in type(error).__mro__ if kind in _HANDLERS)
    return await handler(request, error)


def speaks_openai(path: str) -> bool:
    """Return whether the answers of a path, errors included, have the shape of OpenAI's."""
    return path.startswith("/v1/") or path == "/embeddings"


def _respond(
    request: Request,
    status: int,
    detail: str,
    *,
    code: str,
    title: str | None = None,
    tei_type: str | None = None,
    where: Place | None = None,
    extra: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    if speaks_openai(path_below_root(request.scope)):
        status = 400 if status == 422 else status
        error = {
            "message": detail,
            "type": "server_error" if status >= 500 else "invalid_request_error",
            "param": str(where) if where else None,
            "code": code,
        }
        return Response(orjson.dumps({"error": error}), status, headers, media_type="application/json")
    problem = {
        "type": f"urn:millpond:{code.replace('_', '-')}",
        "title": title or HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "error": detail,
        "error_type": tei_type or _TEI_TYPES_BY_STATUS.get(status, "Validation"),
        **({"where": str(where), "place": where.to_json()} if where else {}),
        **(extra or {}),
    }
    body = orjson.dumps(problem, default=str)
    return Response(body, status, headers, media_type="application/problem+json")


async def _service_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    status, title = _RESPONSES.get(error.code, (422, None))
    headers = {"Retry-After": str(error.retry_after)} if error.retry_after is not None else {}
    if error.code in _CHALLENGES:
        headers["WWW-Authenticate"] = _CHALLENGES[error.code]
    return _respond(
        request,
        status,
        error.detail,
        code=error.code,
        title=title,
        tei_type=_TEI_TYPES.get(type(error)),
        where=error.where,
        extra=error.extra,
        headers=headers,
    )


async def _pooling_error(request: Request, error: Exception) -> Response:
    return _respond(request, 422, str(error), code="invalid_input", title="Invalid input")


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problems: dict[Place | None, list[str]] = {}
    named = set()  # in the message itself
    for item in error.errors():
        where, message = _describe_body(item, request) or describe_fault(item, item["loc"][1:])
        if isinstance(error.__cause__, NotJSON):
            where = error.__cause__.place
        problems.setdefault(where, []).append(message)
        if item["type"] in _OF_SEVERAL_FIELDS:
            named.add(where)
    details = {where: " Or: ".join(dict.fromkeys(messages)) for where, messages in problems.items()}
    errors = [{"where": str(where or ""), "detail": detail} for where, detail in details.items()]
    unreadable = error.errors()[0]["type"] == "json_invalid"
    return _respond(
        request,
        400 if unreadable else 422,
        " ".join(
            f"{where}: {detail}" if where and where not in named else detail
            for where, detail in list(details.items())[:5]
        ),
        code="invalid_json" if unreadable else "invalid_input",
        title="Invalid JSON" if unreadable else "Invalid input",
        where=next(iter(details)),
        extra=None if unreadable else {"errors": errors[:100]},
    )


def describe_fault(item: Mapping[str, Any], loc: Sequence[int | str]) -> tuple[Place | None, str]:
    """Return the place and the message of a validation error at a location in the body, in terms of the request."""
    parts = [part for part in loc if isinstance(part, int) or not _UNION_BRANCH.match(part)]
    match item["type"]:
        case "missing":
            return place_of(parts), "this field is required."
        case "unknown_field":
            return place_of([*parts, item["ctx"]["field"]]), item["msg"]
        case "cut":
            return place_of(parts), item["msg"]
        case kind if kind in _OF_SEVERAL_FIELDS:
            return place_of([*parts, _OF_SEVERAL_FIELDS[kind]]), item["msg"]
        case _:
            return place_of(parts), f"{_in_json(item)}, not {shortened(item.get('input'))}."


def _in_json(item: Mapping[str, Any]) -> str:
    """Return what Pydantic says, in which lists and objects have the names of Python's types."""
    match item["type"]:
        case "model_type" | "model_attributes_type" | "dict_type" | "mapping_type":
            return "Input should be an object"
        case "list_type" | "tuple_type":
            return "Input should be a list"
        case "too_short" | "too_long":
            return str(item["msg"]).replace("Tuple", "List").replace(" after validation", "")
        case _:
            return str(item["msg"])


def _describe_body(item: Mapping[str, Any], request: Request) -> tuple[None, str] | None:
    """Return the message of a validation error of the body as a whole; None for one of a part."""
    match item["type"]:
        case "json_invalid":
            return None, f"the body cannot be read as JSON in UTF-8: {item['ctx']['error']}."
        case "model_attributes_type" | "dict_type" if len(item["loc"]) == 1:
            kind = request.headers.get("content-type", "none")
            if "json" not in kind:
                return None, f"send the body with the header 'content-type: application/json'; it came with {kind!r}."
            return None, "the body must be a JSON object."
        case "missing" if len(item["loc"]) == 1:
            return None, "the request needs a JSON object as its body."
        case _:
            return None


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = {
        404: f"there is no route {request.method} {request.url.path}; /docs lists them.",
        405: f"{request.url.path} does not take {request.method}; /docs lists what it takes.",
        413: "the body is larger than this deployment takes (server.max_body_bytes); send less at once.",
    }.get(error.status_code, str(error.detail))
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    # A router names the methods of one route, and a path may have several.
    if error.status_code == 405:
        error.headers = {"Allow": ", ".join(request.app.state.routes.methods(request.scope))}
    return _respond(request, error.status_code, detail, code=code, headers=error.headers)


async def _unexpected_error(request: Request, error: Exception) -> Response:
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return _respond(request, 500, "this is a bug in the service; its log has the details.", code="internal_error")


_HANDLERS: Final[Mapping[type, Callable[[Request, Exception], Awaitable[Response]]]] = {
    ServiceError: _service_error,
    PoolingError: _pooling_error,
    EmptyTextError: _pooling_error,
    RequestValidationError: _validation_error,
    HTTPException: _http_error,
    Exception: _unexpected_error,
}
