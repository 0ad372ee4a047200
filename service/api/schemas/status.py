"""Whether the service is ready."""

from __future__ import annotations

from pydantic import BaseModel, Field


class ReadyBody(BaseModel):
    """That every model and the store can answer."""

    status: str
    building: list[str] | None = Field(
        default=None,
        description="Collections whose index is being built, if there are any: searches are exact until then.",
    )
