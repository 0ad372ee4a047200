"""OpenAI's embeddings contract."""

from __future__ import annotations

import time
from base64 import b64encode
from typing import Any, Final, cast

from fastapi import APIRouter, Response

from service.api.lean import LeanRoute
from service.api.requests import Served, check_count, places
from service.api.responses import json_list, json_object, response_in_parts
from service.api.schemas.openai import OpenAIEmbeddings, OpenAIEmbedRequest, OpenAIModel, OpenAIModels, OpenAIProblem
from service.embedding.inputs import Inputs

_STARTED: Final = int(time.time())

_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    "4XX": {"model": OpenAIProblem, "description": "Invalid input, an unknown model, or too much at once"},
    503: {"model": OpenAIProblem, "description": "The queue is full; try again after `Retry-After` seconds"},
    504: {"model": OpenAIProblem, "description": "The request was not done within the time that it had"},
}
router = APIRouter(prefix="/v1", tags=["OpenAI"], route_class=LeanRoute, responses=_RESPONSES)
models_router = APIRouter(prefix="/v1", tags=["OpenAI"], responses=_RESPONSES)


@router.post("/embeddings", response_model=OpenAIEmbeddings)
async def embeddings(body: OpenAIEmbedRequest, served: Served) -> Response:
    """Vectors for a string, strings, or token ids of the model's own vocabulary."""
    inputs, several = _inputs(body.input)
    check_count(served, len(inputs), "input")
    embeddings = await served.models.get(body.model, body.pooling).embed(
        inputs,
        prompt_name=body.prompt_name,
        truncate="right" if body.truncate else None,
        dimensions=body.dimensions,
        where=places("input", several=several),
    )

    def to_json(index: int, vector: Any) -> dict[str, Any]:
        encoded = b64encode(vector).decode() if body.encoding_format == "base64" else vector
        return {"object": "embedding", "index": index, "embedding": encoded}

    return await response_in_parts(
        json_object(
            object="list",
            data=json_list(embeddings.vectors, to_json),
            model=body.model,
            usage={"prompt_tokens": embeddings.tokens, "total_tokens": embeddings.tokens},
        )
    )


@models_router.get("/models")
async def models(served: Served) -> OpenAIModels:
    """The served models."""
    return OpenAIModels(
        data=[OpenAIModel(id=name, created=_STARTED, owned_by="millpond") for name, _ in served.models]
    )


@models_router.get("/models/{name:path}")
async def model(name: str, served: Served) -> OpenAIModel:
    """One served model."""
    return OpenAIModel(id=served.models.get(name).name, created=_STARTED, owned_by="millpond")


def _inputs(value: str | list[str] | list[int] | list[list[int]]) -> tuple[Inputs, bool]:
    """Return the inputs as a list, and whether they were sent as a list."""
    if isinstance(value, str) or (value and isinstance(value[0], int)):
        return cast(Inputs, [value]), False
    return cast(Inputs, value), True
