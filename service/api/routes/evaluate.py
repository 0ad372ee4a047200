"""`/evaluate`: poolings compared on data, as `millpond evaluate` does, told as it goes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from service.api import errors
from service.api.middleware.open_requests import OpenRequests, stopping
from service.api.requests import ReadingRoute, Served
from service.api.schemas.evaluate import EvaluateLine, EvaluateRequest
from service.api.schemas.problem import UNKNOWN_MODEL
from service.deadline import in_time, require_time

if TYPE_CHECKING:
    from service.evaluation.running import Evaluation, Step

_PATIENCE: Final = 0.25
"""Seconds after which it is looked whether the service stops."""
_SILENCE: Final = 40
"""Times that nothing is new until the last line is sent again: proxies cut off who says nothing for long."""
_HEADERS: Final = {"x-accel-buffering": "no", "cache-control": "no-store"}
"""For proxies, which otherwise gather lines."""


class _Line(JSONResponse):
    """What the OpenAPI document tells: the media type, and that each line is JSON."""

    media_type = "application/x-ndjson"


class _Evaluating(StreamingResponse):
    """The lines of an evaluation, which ends with them, however that is: also where not one was sent."""

    def __init__(self, lines: AsyncIterator[bytes], begun: Evaluation) -> None:
        super().__init__(lines, headers=_HEADERS, media_type=_Line.media_type)
        self._begun = begun

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._begun.stop()


router = APIRouter(tags=["embed"], route_class=ReadingRoute)


@router.post("/evaluate", response_class=_Line, response_model=EvaluateLine, responses=UNKNOWN_MODEL)
async def evaluate(request: Request, body: EvaluateRequest, served: Served) -> StreamingResponse:
    """Which pooling the data want: every one scored from the same pass, with intervals, and advice in a sentence.

    Answers in JSON lines: `progress` a few times a second, and in the end the `report`, or the `error` that came
    after the first line. A client that leaves ends it. One evaluation is made at a time, a few texts at once, so that
    other requests go on.
    """
    evaluations = await in_time(served.evaluations())
    require_time()
    begun = await evaluations.begin(model=body.model, poolings=body.poolings, layers=body.layers, rows=body.rows)
    try:
        steps = aiter(begun.steps(_PATIENCE))
        first = await anext(steps, None)  # what fails by now is answered as an error
        if begun.is_over:
            await begun.report()
    except BaseException:
        begun.stop()
        raise
    return _Evaluating(_told(request, begun, first, steps), begun)


async def _told(
    request: Request, begun: Evaluation, step: Step | None, steps: AsyncIterator[Step | None]
) -> AsyncIterator[bytes]:
    requests: OpenRequests = request.app.state.requests
    line, silence = b"", 0
    try:
        while True:
            if step is not None:
                line, silence = _line(progress=step), 0
                yield line
            elif (silence := silence + 1) % _SILENCE == 0:
                yield line
            if requests.draining:
                raise stopping()
            try:
                step = await anext(steps)
            except StopAsyncIteration:
                break
        yield _line(report=(await begun.report()).to_json())
    except Exception as error:
        problem = await errors.respond(request, error)
        yield _line(error=orjson.Fragment(bytes(problem.body)))


def _line(**member: object) -> bytes:
    return orjson.dumps(member, option=orjson.OPT_APPEND_NEWLINE)
