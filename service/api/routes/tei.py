"""Routes of text-embeddings-inference beside `/embed`, `/embed_all`, `/embeddings` and `/info`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from service.api.lean import LeanRoute
from service.api.requests import Served, check_count, places
from service.api.responses import json_list, json_list_of, response_in_parts
from service.api.routes.docs import root_path
from service.api.routes.embed import embed_inputs
from service.api.schemas.fields import listed, purpose
from service.api.schemas.problem import UNKNOWN_MODEL
from service.api.schemas.tei import (
    DecodeRequest,
    Pairing,
    SimilarityRequest,
    TaskRequest,
    TokenBody,
    TokenizeRequest,
)
from service.api.vectors import TRUNCATED, truncation
from service.encoder import TokenizedText, Tokenizer
from service.errors import Place, TooLarge
from service.similarity import COSINE

MOST_LISTED: Final = 262_144
"""Tokens in one answer of `/tokenize`."""
_SENTENCES: Final = "inputs.sentences"

router = APIRouter(tags=["text-embeddings-inference"], route_class=LeanRoute)
status_router = APIRouter(tags=["text-embeddings-inference"])


@router.post("/", response_model=list[list[float] | str] | list[float], responses=UNKNOWN_MODEL | TRUNCATED)
@router.post(
    "/invocations", response_model=list[list[float] | str] | list[float], responses=UNKNOWN_MODEL | TRUNCATED
)
async def task(body: TaskRequest, served: Served) -> Response:
    """What `/embed` answers, or where the inputs have a source sentence, what `/similarity` does."""
    asked = body.flat
    if not isinstance(asked.inputs, Pairing):
        return await embed_inputs(asked.inputs, asked, served)
    return await _similarity(asked.inputs, asked, served)


@router.post("/similarity", response_model=list[float], responses=UNKNOWN_MODEL | TRUNCATED)
async def similarity(body: SimilarityRequest, served: Served) -> Response:
    """The cosine of a sentence with each of several others."""
    return await _similarity(body.inputs, body.flat, served)


async def _similarity(inputs: Pairing, options: SimilarityRequest | TaskRequest, served: Served) -> Response:
    check_count(served, len(inputs.sentences), _SENTENCES)
    model = served.models.get(options.model, options.pooling, options.layers)
    prompt_name, role = options.purpose(model)
    model = model.of(role, prompt_name)

    def where(index: int) -> Place:
        name = f"{_SENTENCES}[{index - 1}]" if index else "inputs.source_sentence"
        return Place("inputs", index - 1 if index else None, name=name)

    embeddings = await model.embed(
        [inputs.source_sentence, *inputs.sentences],
        prompt_name=prompt_name,
        role=role,
        truncate=options.cut(model),
        where=where,
    )
    COSINE.check(embeddings.vectors)
    vectors = COSINE.prepared(embeddings.vectors)
    return await response_in_parts(json_list(vectors[1:] @ vectors[0]), headers=truncation(embeddings.truncated))


@router.post("/tokenize", response_model=list[list[TokenBody]], responses=UNKNOWN_MODEL)
async def tokenize(body: TokenizeRequest, served: Served) -> Response:
    """The tokens of each text as a model reads it; no text is cut."""
    texts, several = listed(body.inputs)
    check_count(served, len(texts), "inputs")
    model = served.models.get(body.model)
    prompt_name, role = purpose(model, body.prompt_name, input_type=body.input_type)
    model = model.of(role, prompt_name)
    found = await model.tokenize(texts, prompt_name=prompt_name, role=role, where=places("inputs", several=several))
    total = sum(text.full_length for text in found)
    if total > MOST_LISTED:
        raise TooLarge(
            f"the inputs have {total} tokens together; {MOST_LISTED} are listed at once. Send fewer or shorter ones.",
            where=Place("inputs"),
            limit=MOST_LISTED,
        )
    tokenizer = model.encoder.tokenizer
    return await response_in_parts(
        json_list_of(
            _tokens(tokenizer, text, tokens, framed=body.add_special_tokens)
            for text, tokens in zip(texts, found, strict=True)
        )
    )


@router.post("/decode", response_model=list[str], responses=UNKNOWN_MODEL)
async def decode(body: DecodeRequest, served: Served) -> Response:
    """The texts of token ids, as a model's own tokenizer writes them."""
    several = bool(body.ids) and isinstance(body.ids[0], list)
    ids: Any = body.ids if several else [body.ids]
    check_count(served, len(ids) if body.ids else 0, "ids")
    model = served.models.get(body.model)
    _, role = purpose(model, None, input_type=body.input_type)
    texts = await model.of(role).decode(
        ids, skip_special_tokens=body.skip_special_tokens, where=places("ids", several=several)
    )
    return await response_in_parts(json_list(texts))


@status_router.get("/ping", summary="Alive")
async def ping() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@status_router.get("/", summary="Alive", response_model=dict[str, str])
async def root(request: Request) -> Any:
    """The process answers; a browser is led to the lab."""
    if "text/html" in request.headers.get("accept", ""):
        return RedirectResponse(f"{root_path(request)}/lab")
    return await ping()


def _tokens(tokenizer: Tokenizer, text: str, tokenized: TokenizedText, *, framed: bool) -> Iterator[bytes]:
    before, after = tokenizer.frame_lengths("")
    first, last = before, len(tokenized.ids) - after
    kept = range(len(tokenized.ids)) if framed else range(first, last)

    def to_json(_: int, place: int) -> dict[str, Any]:
        identifier = int(tokenized.ids[place])
        start, stop = tokenized.offsets[place] or (None, None)
        return {
            "id": identifier,
            "text": tokenizer.tokens(tokenized.ids[place : place + 1])[0] if start is None else text[start:stop],
            "special": not first <= place < last,
            "start": start,
            "stop": stop,
        }

    return json_list(kept, to_json)
