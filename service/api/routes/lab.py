"""The lab: a page on which one looks at poolings. All that it shows comes from the public routes."""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from starlette.exceptions import HTTPException

router = APIRouter(include_in_schema=False)

_PACKAGE: Final = "service.lab"
_TYPES: Final = {"lab.html": "text/html; charset=utf-8", "lab.js": "text/javascript", "lab.css": "text/css"}
_POLICY: Final = "; ".join(
    [
        "default-src 'none'",
        *(f"{kind}-src 'self'" for kind in ("script", "style", "connect")),
        "img-src data:",
        *(f"{kind} 'none'" for kind in ("base-uri", "form-action", "frame-ancestors")),
    ]
)
"""Nothing is loaded from elsewhere or run but the files below, and no other page may show this one."""
_HEADERS: Final = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


@router.get("/lab")
async def lab(request: Request) -> Response:
    """The page."""
    return _answer("lab.html", request)


@router.get("/lab/")
async def lab_below() -> Response:
    """Leads to the page, whose links are relative to where it is."""
    return RedirectResponse("../lab")


@router.get("/lab/{file}")
async def file(file: str, request: Request) -> Response:
    """A file that the page loads."""
    if file not in _TYPES:
        raise HTTPException(404)
    return _answer(file, request)


@cache
def _file(name: str) -> tuple[bytes, str]:
    """Return a file's content, and its name for what a browser keeps of it."""
    content = (files(_PACKAGE) / name).read_bytes()
    return content, f'"{sha256(content).hexdigest()[:32]}"'


def _answer(name: str, request: Request) -> Response:
    """Return a file, or that the browser has it already."""
    content, tag = _file(name)
    headers = {**_HEADERS, "etag": tag}
    if request.headers.get("if-none-match") == headers["etag"]:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=_TYPES[name])
