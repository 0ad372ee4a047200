"""The store as a whole."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, Field

from service.api.requests import Body, JSONRoute, Served
from service.api.schemas.fields import examples
from service.api.schemas.problem import problem

router = APIRouter(tags=["store"], route_class=JSONRoute)


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


@router.post("/compact", responses=problem(507, "The disk has no room for the rebuilt file"))
async def compact(served: Served, body: CompactRequest | None = None) -> CompactedBody:
    """Give space back to the disk that deleted documents and collections have left in the store's file.

    It is done in small steps beside all other requests. With `rebuild` no document can be stored meanwhile.
    """
    before, after = await served.collections.compact(rebuild=body is not None and body.rebuild)
    return CompactedBody(bytes_before=before.bytes, bytes=after.bytes, bytes_free=after.free)
