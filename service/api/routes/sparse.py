"""`/embed_sparse` of text-embeddings-inference: the weights that sparse models give to the tokens of a vocabulary."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from fastapi import APIRouter, Response

from service.api.lean import LeanRoute
from service.api.requests import Served, check_count, places
from service.api.responses import json_list, json_list_of, response_in_parts
from service.api.schemas.fields import listed
from service.api.schemas.problem import UNKNOWN_MODEL, problem
from service.api.schemas.sparse import EmbedSparseRequest, WeightBody
from service.api.vectors import TRUNCATED, truncation
from service.embedding.sparse import SparseVector
from service.encoder import Tokenizer

_NONE: Final = problem(424, "No such model is served")

router = APIRouter(tags=["text-embeddings-inference"], route_class=LeanRoute)


@router.post("/embed_sparse", response_model=list[list[WeightBody]], responses=UNKNOWN_MODEL | TRUNCATED | _NONE)
async def embed_sparse(body: EmbedSparseRequest, served: Served) -> Response:
    """The weights above 0 of each text, in the order of the vocabulary; with `tokens`, which tokens they are of."""
    texts, several = listed(body.inputs)
    check_count(served, len(texts), "inputs")
    model = served.sparse.get(body.model)
    prompt_name, role = body.purpose(model)
    found = await model.embed(
        texts,
        prompt_name=prompt_name,
        role=role,
        truncate=body.cut(model),
        where=places("inputs", several=several),
    )
    tokenizer = model.encoder.tokenizer if body.tokens else None
    return await response_in_parts(
        json_list_of(_weights(vector, tokenizer) for vector in found.vectors), headers=truncation(found.truncated)
    )


def _weights(vector: SparseVector, tokenizer: Tokenizer | None) -> Iterator[bytes]:
    """Encode a vector; with the names of its tokens where there is a tokenizer."""
    names = tokenizer.tokens(vector.indices) if tokenizer else None

    def to_json(place: int, index: int) -> dict[str, Any]:
        token = {} if names is None else {"token": names[place]}
        return {"index": index, "value": vector.values[place], **token}

    return json_list(vector.indices.tolist(), to_json)
