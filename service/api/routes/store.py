"""The store as a whole."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter
from pydantic import BaseModel, Field

from service.api.requests import Body, JSONRoute, Served
from service.api.schemas.fields import examples
from service.api.schemas.problem import PROBLEMS, Problem

_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    422: PROBLEMS[422],
    503: {"model": Problem, "description": "The store cannot be used"},
    504: PROBLEMS[504],
    507: {"model": Problem, "description": "The disk has no room for the rebuilt file"},
}
router = APIRouter(tags=["store"], route_class=JSONRoute, responses=_RESPONSES)


class CompactRequest(Body):
    """How space is given back."""

    model_config = examples({"rebuild": False})

    rebuild: bool = Field(
        default=False, description="Write the whole file anew, which one of an earlier release needs once."
    )


class CompactedBody(BaseModel):
    """The store's bytes on disk before and after, and how many of them are free still."""

    bytes_before: int
    bytes: int
    bytes_free: int


@router.post("/compact", responses={400: PROBLEMS[400]})
async def compact(served: Served, body: CompactRequest | None = None) -> CompactedBody:
    """Give space back to the disk that deleted documents and collections have left in the store's file.

    It is done in small steps beside all other requests. With `rebuild` no document can be stored meanwhile.
    """
    before, after = await served.collections.compact(rebuild=body is not None and body.rebuild)
    return CompactedBody(bytes_before=before.bytes, bytes=after.bytes, bytes_free=after.free)
