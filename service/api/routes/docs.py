"""Pages that describe the API. What they load is served here, so that they need no network."""

from __future__ import annotations

from importlib.resources import files
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from starlette.exceptions import HTTPException

router = APIRouter(include_in_schema=False)

_PACKAGE: Final = "fastapi_offline"
_TYPES: Final = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "redoc.standalone.js": "text/javascript",
    "favicon.png": "image/png",
}
_CACHED: Final = {"cache-control": "max-age=86400"}


@router.get("/docs")
async def docs(request: Request) -> Response:
    """Swagger UI over the OpenAPI document."""
    root = root_path(request)
    return get_swagger_ui_html(
        openapi_url=f"{root}/openapi.json",
        title="Millpond",
        swagger_js_url=f"{root}/docs/swagger-ui-bundle.js",
        swagger_css_url=f"{root}/docs/swagger-ui.css",
        swagger_favicon_url=f"{root}/docs/favicon.png",
        swagger_ui_parameters={"validatorUrl": None},  # which is a service of others
    )


@router.get("/redoc")
async def redoc(request: Request) -> Response:
    """Redoc over the OpenAPI document."""
    root = root_path(request)
    return get_redoc_html(
        openapi_url=f"{root}/openapi.json",
        title="Millpond",
        redoc_js_url=f"{root}/docs/redoc.standalone.js",
        redoc_favicon_url=f"{root}/docs/favicon.png",
        with_google_fonts=False,
    )


@router.get("/docs/{file}")
async def file(file: str) -> Response:
    """A file that one of the pages loads."""
    if file not in _TYPES:
        raise HTTPException(404)
    content = (files(_PACKAGE) / "static" / file).read_bytes()
    return Response(content, headers=_CACHED, media_type=_TYPES[file])


def root_path(request: Request) -> str:
    """Return the prefix that all paths have, without a slash at its end."""
    root: Any = request.scope.get("root_path", "")
    return str(root).rstrip("/")
