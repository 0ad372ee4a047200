"""OpenAI's embeddings contract."""

from __future__ import annotations

import time
from typing import Any, Final

from fastapi import APIRouter, Response

from service.api.lean import LeanRoute
from service.api.requests import Served
from service.api.responses import json_list, json_object, response_in_parts
from service.api.schemas.openai import OpenAIEmbeddings, OpenAIEmbedRequest, OpenAIModel, OpenAIModels, OpenAIProblem
from service.api.vectors import VECTORS, embedded, encoding

_STARTED: Final = int(time.time())

_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    "4XX": {"model": OpenAIProblem, "description": "Invalid input, an unknown model, or too much at once"},
}
router = APIRouter(tags=["OpenAI"], route_class=LeanRoute, responses=_RESPONSES)
models_router = APIRouter(prefix="/v1", tags=["OpenAI"], responses=_RESPONSES)


@router.post("/embeddings", response_model=OpenAIEmbeddings, responses=VECTORS)
@router.post("/v1/embeddings", response_model=OpenAIEmbeddings, responses=VECTORS)
async def embeddings(body: OpenAIEmbedRequest, served: Served) -> Response:
    """Vectors for a string, strings, or token ids where the deployment takes them (`server.token_ids`)."""
    embeddings = await embedded(body.input, body, served, "input")
    encode = encoding(body)

    def to_json(index: int, vector: Any) -> dict[str, Any]:
        return {"object": "embedding", "index": index, "embedding": encode(index, vector) if encode else vector}

    cut = {"truncated": embeddings.truncated} if embeddings.truncated else {}
    return await response_in_parts(
        json_object(
            object="list",
            data=json_list(embeddings.vectors, to_json),
            model=served.models.default if body.model is None else body.model,
            usage={"prompt_tokens": embeddings.tokens, "total_tokens": embeddings.tokens},
            **cut,
        ),
        headers=embeddings.headers,
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
