"""What every error answer has to be."""

from __future__ import annotations

from typing import Any

import httpx

from service.api.errors import speaks_openai


def problem(response: httpx.Response, status: int, *words: str) -> dict[str, Any]:
    """Assert a problem document (RFC 9457) of this status whose detail holds all words; returns it."""
    assert response.status_code == status, response.text[:500]
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["status"] == status
    assert body["type"].startswith("urn:millpond:") and body["title"]
    assert body["error"] == body["detail"] and body["error_type"]
    if status == 422:  # a body that is no object has no part to name
        assert "place" in body or "body" in body["detail"], body
    _clear(body["detail"], words)
    return body


def openai_problem(response: httpx.Response, status: int, *words: str) -> dict[str, Any]:
    """Assert an error in OpenAI's shape; returns what it says."""
    assert response.status_code == status, response.text[:500]
    assert response.headers["content-type"] == "application/json"
    assert response.json().keys() == {"error"}
    error: dict[str, Any] = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["type"] == ("server_error" if status >= 500 else "invalid_request_error")
    _clear(error["message"], words)
    return error


def well_formed(response: httpx.Response) -> None:
    """Assert that an error answer has the shape of its route, whatever it says."""
    check = openai_problem if speaks_openai(response.request.url.path) else problem
    check(response, response.status_code)


def _clear(detail: str, words: tuple[str, ...]) -> None:
    assert 10 < len(detail) < 4000
    assert "Traceback" not in detail and 'File "' not in detail
    for word in words:
        assert word in detail
