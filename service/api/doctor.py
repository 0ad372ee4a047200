"""`/doctor`: whether the served models are what their checkpoints want them to be."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from service.api.embed import PROBLEMS
from service.api.service import Served

router = APIRouter(tags=["status"])


@router.get("/doctor", responses={status: PROBLEMS[status] for status in (404, 503)})
async def doctor(service: Served, model: str | None = None) -> dict[str, Any]:
    """A report on each served model, or on one: declared against served, faults by name, and other strategies.

    A report is made when it is first asked for, which takes some seconds, and kept.
    """
    names = [name for name, _ in service.models] if model is None else [model]
    return {"models": {name: (await service.examinations.report(name)).to_json() for name in names}}
