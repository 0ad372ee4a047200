"""What whoever runs the service does with it while it runs."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter
from pydantic import BaseModel, Field

from service.api.requests import Served
from service.api.schemas.problem import problem

_RESPONSES: Final = problem(409, "The config or the file of keys is at fault; nothing has changed")
router = APIRouter(tags=["admin"])


class ReloadedBody(BaseModel):
    """What has been read, by name."""

    changed: list[str] = Field(description="Keys of the config that have changed, and are followed now.")
    restart: list[str] = Field(description="Keys of the config that differ from what is served and need a restart.")
    keys: list[str] = Field(description="The API keys that are known now.")


@router.post("/admin/reload", responses=_RESPONSES)
async def reload(served: Served) -> ReloadedBody:
    """Read the config and the file of keys again, as SIGHUP makes the service do.

    Limits, the log level and keys change at once. What else differs needs a restart.
    """
    found = await served.reread()
    return ReloadedBody(changed=found.changed, restart=found.restart, keys=found.keys)
