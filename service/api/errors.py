"""Errors as answers: problem documents (RFC 9457), and under /v1 OpenAI's own shape."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from pooling import EmptyTextError, PoolingError
from service.collections.errors import CollectionError, Conflict, NotFound, StoreUnavailable
from service.errors import ServiceError, Unavailable, shortened

logger = logging.getLogger(__name__)

_COLLECTION_STATUS: Final[Mapping[type[CollectionError], int]] = {NotFound: 404, Conflict: 409, StoreUnavailable: 503}
# Pydantic puts the branch of a union it tried among the keys: `inputs`, `list[str]`, 3.
_BRANCH: Final = re.compile(r"^(str|int|float|bool|(list|dict|function|tagged|constrained|literal)\b.*)$")


def install(app: FastAPI) -> None:
    """Answer every error that can leave a route."""
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(CollectionError, _collection_error)
    app.add_exception_handler(PoolingError, _pooling_error)
    app.add_exception_handler(EmptyTextError, _pooling_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _bug)


def document(app: FastAPI) -> None:
    """Say in the OpenAPI document that problems come as problem documents."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        described = plain()
        for path, operations in described["paths"].items():
            for operation in operations.values():
                for status, response in operation["responses"].items():
                    content = response.get("content", {})
                    if not path.startswith("/v1/") and status >= "4" and "application/json" in content:
                        content["application/problem+json"] = content.pop("application/json")
        return described

    app.openapi = openapi  # type: ignore[method-assign]


def _answer(
    request: Request,
    status: int,
    detail: str,
    *,
    code: str,
    title: str | None = None,
    where: str | None = None,
    extra: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    if request.url.path.startswith("/v1/"):
        status = 400 if status == 422 else status
        error = {
            "message": detail,
            "type": "server_error" if status >= 500 else "invalid_request_error",
            "param": where,
            "code": code,
        }
        return Response(orjson.dumps({"error": error}), status, headers, media_type="application/json")
    problem = {
        "type": f"urn:millpond:{code.replace('_', '-')}",
        "title": title or HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        **({"where": where} if where else {}),
        **(extra or {}),
    }
    body = orjson.dumps(problem, default=str)
    return Response(body, status, headers, media_type="application/problem+json")


async def _service_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    headers = {"Retry-After": str(error.retry_after)} if isinstance(error, Unavailable) else None
    return _answer(
        request,
        error.status,
        error.detail,
        code=error.code,
        title=error.title,
        where=error.where,
        extra=error.extra,
        headers=headers,
    )


async def _collection_error(request: Request, error: Exception) -> Response:
    status = next((status for kind, status in _COLLECTION_STATUS.items() if isinstance(error, kind)), 422)
    code = re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).lower()
    extra = {"stored": error.stored, "asked": error.asked} if isinstance(error, Conflict) else None
    headers = {"Retry-After": "5"} if status == 503 else None
    return _answer(request, status, str(error), code=code, extra=extra, headers=headers)


async def _pooling_error(request: Request, error: Exception) -> Response:
    return _answer(request, 422, str(error), code="invalid_input", title="Invalid input")


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problems: dict[str, list[str]] = {}
    for item in error.errors():
        where, message = _explain(item, request)
        problems.setdefault(where, []).append(message)
    errors = [{"where": where, "detail": " Or: ".join(dict.fromkeys(texts))} for where, texts in problems.items()]
    detail = " ".join(
        f"{item['where']}: {item['detail']}" if item["where"] else item["detail"] for item in errors[:5]
    )
    unreadable = error.errors()[0]["type"] == "json_invalid"
    return _answer(
        request,
        400 if unreadable else 422,
        detail,
        code="invalid_json" if unreadable else "invalid_input",
        title="Invalid JSON" if unreadable else "Invalid input",
        where=errors[0]["where"] or None,
        extra=None if unreadable else {"errors": errors[:100]},
    )


def _explain(item: Mapping[str, Any], request: Request) -> tuple[str, str]:
    """Where a validation error is and what it says, in the words of the request."""
    where = _path([part for part in item["loc"][1:] if isinstance(part, int) or not _BRANCH.match(part)])
    match item["type"]:
        case "json_invalid":
            return "", f"the body cannot be read as JSON in UTF-8: {item['ctx']['error']}."
        case "model_attributes_type" | "dict_type" if len(item["loc"]) == 1:
            kind = request.headers.get("content-type", "none")
            if "json" not in kind:
                return "", f"send the body with the header 'content-type: application/json'; it came with {kind!r}."
            return "", "the body must be a JSON object."
        case "missing" if len(item["loc"]) == 1:
            return "", "the request needs a JSON object as its body."
        case "missing":
            return where, "this field is required."
        case "unknown_field":
            return f"{where}.{item['ctx']['field']}" if where else item["ctx"]["field"], item["msg"]
        case "one_question" | "cut":
            return where, item["msg"]
        case _:
            return where, f"{item['msg']}, not {shortened(item.get('input'))}."


def _path(parts: Sequence[int | str]) -> str:
    path = ""
    for part in parts:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = {
        404: f"there is no route {request.method} {request.url.path}; /docs lists them.",
        405: f"{request.url.path} does not take {request.method}; /docs lists what it takes.",
        413: "the body is larger than this deployment takes (server.max_body_bytes); send less at once.",
    }.get(error.status_code, str(error.detail))
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    return _answer(request, error.status_code, detail, code=code, headers=error.headers)


async def _bug(request: Request, error: Exception) -> Response:
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return _answer(request, 500, "this is a bug in the service; its log has the details.", code="internal_error")
