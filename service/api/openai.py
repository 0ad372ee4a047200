"""OpenAI's embeddings contract."""

from __future__ import annotations

import time
from base64 import b64encode
from typing import Final, cast

from fastapi import APIRouter, Response

from service.api.json import JSONRoute, answer
from service.api.schemas import OpenAIEmbeddings, OpenAIEmbedRequest, OpenAIModel, OpenAIModels, OpenAIProblem
from service.api.service import Served
from service.embedder import Inputs

_STARTED: Final = int(time.time())

router = APIRouter(
    prefix="/v1",
    tags=["OpenAI"],
    route_class=JSONRoute,
    responses={
        "4XX": {"model": OpenAIProblem, "description": "Invalid input, an unknown model, or too much at once"},
        503: {"model": OpenAIProblem, "description": "The queue is full; try again after `Retry-After` seconds"},
    },
)


@router.post("/embeddings", response_model=OpenAIEmbeddings)
async def embeddings(body: OpenAIEmbedRequest, service: Served) -> Response:
    """Vectors for a string, strings, or token ids of the model's own vocabulary."""
    inputs, several = _inputs(body.input)
    service.check_count(len(inputs), "input")
    found = await service.models.get(body.model, body.pooling).embed(
        inputs,
        prompt_name=body.prompt_name,
        truncate="right" if body.truncate else None,
        dimensions=body.dimensions,
        where="input[{}]".format if several else lambda _: "input",
    )
    vectors = found.vectors
    shown = [b64encode(row).decode() for row in vectors] if body.encoding_format == "base64" else vectors
    return answer(
        {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(shown)
            ],
            "model": body.model,
            "usage": {"prompt_tokens": found.tokens, "total_tokens": found.tokens},
        }
    )


@router.get("/models")
async def models(service: Served) -> OpenAIModels:
    """The served models."""
    return OpenAIModels(
        data=[OpenAIModel(id=name, created=_STARTED, owned_by="millpond") for name, _ in service.models]
    )


@router.get("/models/{name:path}")
async def model(name: str, service: Served) -> OpenAIModel:
    """One served model."""
    return OpenAIModel(id=service.models.get(name).name, created=_STARTED, owned_by="millpond")


def _inputs(value: str | list[str] | list[int] | list[list[int]]) -> tuple[Inputs, bool]:
    """The inputs as a list, and whether they were one."""
    if isinstance(value, str):
        return [value], False
    if value and isinstance(value[0], int):
        return [value], False
    return cast(Inputs, value), True
