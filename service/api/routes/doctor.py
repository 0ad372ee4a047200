"""`/doctor`: whether models are served as their checkpoints declare."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from service.api.requests import Served
from service.api.schemas.doctor import Examined
from service.api.schemas.problem import UNKNOWN_MODEL

router = APIRouter(tags=["status"])


@router.get("/doctor", response_model=Examined, responses=UNKNOWN_MODEL)
async def doctor(
    served: Served, model: Annotated[str | None, Query(description="Only this model; by default all.")] = None
) -> dict[str, Any]:
    """A report on each served model: declared against served, faults by name, and how far off others would be.

    A report is made when it is first asked for, which takes some seconds a model, and kept. Reports are made one at a
    time, a few texts at once, so that other requests go on.
    """
    names = [name for name, _ in served.models] if model is None else [model]
    return {"models": {name: (await served.examinations.report(name)).to_json() for name in names}}
