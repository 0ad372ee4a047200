"""`/embed` and `/embed_all`, supersets of text-embeddings-inference's routes, and `/embed_spans`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Final

from fastapi import APIRouter, Response

from service.api.lean import LeanRoute
from service.api.requests import Served, check_count, places
from service.api.responses import json_list, json_list_of, json_object, response_in_parts
from service.api.schemas.embed import (
    EmbedAllRequest,
    EmbedRequest,
    EmbedSpansRequest,
    SpanVectorsBody,
    TokenStatesBody,
)
from service.api.schemas.fields import VectorOptions, listed
from service.api.schemas.problem import UNKNOWN_MODEL
from service.api.schemas.spans import CutBody
from service.api.vectors import TRUNCATED, VECTORS, embedded, encoding, truncation, typed
from service.embedding.chunkers import Chunker
from service.embedding.embedder import TokenStates
from service.embedding.token_ids import read_ids
from service.errors import InvalidInput, Place

MOST_STATES: Final = 16_384
"""Token states in one response; as JSON, each is several kilobytes."""

router = APIRouter(tags=["embed"], route_class=LeanRoute)


@router.post("/embed", response_model=list[list[float] | str], responses=UNKNOWN_MODEL | VECTORS)
async def embed(body: EmbedRequest, served: Served) -> Response:
    """One vector a text, under the model's pooling or another."""
    return await embed_inputs(body.inputs, body, served)


async def embed_inputs(inputs: str | Sequence[Any], options: VectorOptions, served: Served) -> Response:
    """Return the response of `/embed` to inputs."""
    embeddings = await embedded(inputs, options, served, "inputs")
    return await response_in_parts(json_list(embeddings.vectors, encoding(options)), headers=embeddings.headers)


@router.post(
    "/embed_all",
    response_model=list[TokenStatesBody] | list[list[list[float]]],
    responses=UNKNOWN_MODEL | TRUNCATED,
)
async def embed_all(body: EmbedAllRequest, served: Served) -> Response:
    """The encoder's token states of each text, before any pooling, with tokens and character offsets.

    Token ids are taken as `/embed` takes them, and have no offsets. The states are those that the model pools: of its
    last layer, unless the model or the request says `layers`.

    Where the deployment has `server.embed_all: tei`, the states alone, as text-embeddings-inference gives them.
    """
    texts, several = listed(body.inputs)
    check_count(served, len(texts), "inputs")
    model = served.models.get(body.model, layers=body.layers)
    prompt_name, role = body.purpose(model)
    model = model.of(role, prompt_name)
    to_json = _states_alone if served.config.server.embed_all == "tei" else _states
    where = places("inputs", several=several)
    async with model.token_states(
        await read_ids(texts, served.token_ids, model.encoder.tokenizer, where),
        prompt_name=prompt_name,
        role=role,
        truncate=body.cut(model),
        max_total=MOST_STATES,
        where=where,
    ) as states:
        cut = [index for index, text in enumerate(states) if text.truncated]
        return await response_in_parts(json_list_of(map(to_json, states)), headers=truncation(cut))


def _states(text: TokenStates) -> Iterator[bytes]:
    cut = {"truncated": True} if text.truncated else {}
    return json_object(tokens=text.tokens, offsets=text.offsets, states=json_list(text.states), **cut)


def _states_alone(text: TokenStates) -> Iterator[bytes]:
    return json_list(text.states)


@router.post("/embed_spans", response_model=list[SpanVectorsBody], responses=UNKNOWN_MODEL)
async def embed_spans(body: EmbedSpansRequest, served: Served) -> Response:
    """One vector a span of each text, pooled from one pass over the whole text (late chunking), or from its own.

    **Spans** are in characters, that is in Unicode code points, and the end is exclusive. Given ones may overlap,
    come twice and in any order. A token belongs to each span that it overlaps by more than white space, and counts
    whole: so a span may begin inside a token, or inside a character of several code points. Special tokens and a
    prompt belong to no span; under `cls` a span's vector is the state of its own first token, under `last` of its own
    last. A span that is empty, reversed, outside the text or without a token is refused.
    `{"tokens": n, "overlap": m}` cuts runs of n tokens that begin with the last m of the one before, and
    `{"by": "sentence"}` cuts sentences.

    **late** reads the whole text at once, so each vector knows its context. A text longer than the model takes is
    read in windows that share a quarter of their tokens or more, and a token's state comes from the window in which
    it has the most context on both sides; a span across windows is still one vector. No text is cut.

    **early** embeds the characters of each span as `/embed` would, special tokens and prompt included, and refuses
    or, with `truncate`, cuts a span that is too long.
    """
    texts, several = listed(body.inputs)
    check_count(served, len(texts), "inputs")
    model = served.models.get(body.model, body.pooling, body.layers)
    prompt_name, role = body.purpose(model)
    model = model.of(role, prompt_name)
    found = await model.embed_spans(
        texts,
        _spans(body, several, len(texts)),
        mode=body.mode,
        prompt_name=prompt_name,
        role=role,
        truncate=body.cut(model),
        normalize=body.normalize,
        dimensions=body.dimensions,
        most=served.config.server.max_texts,
        where=places("inputs", several=several),
        where_span=partial(Place, "spans") if several else lambda _, span: Place("spans", span=span),
    )
    return await response_in_parts(
        json_list_of(
            json_object(
                spans=text.spans,
                vectors=json_list(typed(text.vectors, body, model), encoding(body)),
                **({"truncated": text.truncated} if text.truncated else {}),
            )
            for text in found
        )
    )


def _spans(body: EmbedSpansRequest, several: bool, texts: int) -> Chunker | Sequence[Sequence[Sequence[int]]]:
    """Return what cuts the texts, or the spans of each of them."""
    if isinstance(body.spans, CutBody):
        return body.spans.parsed()
    given: Sequence[Any] = body.spans
    nested = bool(given) and bool(given[0]) and isinstance(given[0][0], list)
    if several != nested:
        raise InvalidInput(
            "several texts need their spans as a list of lists, [[[start, end], ...], ...], one list for each text."
            if several
            else "one text needs its spans as one list, [[start, end], ...].",
            where=Place("spans"),
        )
    if not several:
        return [given]
    if len(given) != texts:
        raise InvalidInput(
            f"spans has {len(given)} lists for {texts} texts; give one for each.", where=Place("spans")
        )
    return given
