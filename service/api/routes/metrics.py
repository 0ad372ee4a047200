"""Metrics for Prometheus."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request, Response
from prometheus_client import generate_latest

router = APIRouter(tags=["status"])


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request) -> Response:
    """What Prometheus scrapes, in its text format."""
    content = await asyncio.to_thread(generate_latest, request.app.state.metrics)
    return Response(content, media_type="text/plain; version=0.0.4")
