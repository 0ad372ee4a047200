"""`/explain`: the contributions of tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, Response

from service.api.lean import LeanRoute
from service.api.requests import Served
from service.api.responses import json_list, json_list_of, json_object, response_in_parts
from service.api.schemas.explain import ExplainedBody, ExplainRequest
from service.api.schemas.fields import purpose
from service.api.schemas.problem import UNKNOWN_MODEL
from service.arrays import Floats
from service.embedding.embedder import TokenStates
from service.embedding.explain import Explained, Explanation
from service.embedding.explain import explain as explain_texts
from service.errors import InvalidInput, Place

router = APIRouter(tags=["embed"], route_class=LeanRoute)


@router.post("/explain", response_model=ExplainedBody, responses=UNKNOWN_MODEL)
async def explain(body: ExplainRequest, served: Served) -> Response:
    """Each token's share of the vector under one or several strategies; with `other`, what makes both texts alike.

    A share is a token's weight, all of them made to add up to one; where each dimension has weights of its own
    (max, gem, concatenations), the mean over the dimensions. Tokens of a prompt that are not pooled have none.
    """
    if body.other is None and body.other_input_type is not None:
        raise InvalidInput(
            "'other_input_type' says what 'other' is for, and there is none; send 'other' too.",
            where=Place("other_input_type"),
        )
    viewing = body.viewing(served.models)
    model = served.models.get(body.model)
    of_other = purpose(model, body.prompt_name, other_input_type=body.other_input_type)
    explained = await explain_texts(
        served.models,
        viewing,
        body.text,
        body.other,
        asked_of_other=None if body.other_input_type is None else of_other,
        matrices=body.matrix,
    )
    explanations = (
        _explanation(explained, explanation, matrix=body.matrix) for explanation in explained.explanations
    )
    texts = {"text": explained.text, "other": explained.other}
    cut = [name for name, states in texts.items() if states is not None and states.truncated]
    return await response_in_parts(
        json_object(
            model=explained.model,
            **({} if explained.layers == "last" else {"layers": explained.layers}),
            head=explained.head or None,
            explanations=json_list_of(explanations),
            **({"truncated": cut} if cut else {}),
        )
    )


def _explanation(explained: Explained, explanation: Explanation, *, matrix: bool) -> Iterator[bytes]:
    pair = explanation.pair
    if pair is None or explained.other is None:
        return json_object(pooling=explanation.pooling, tokens=_tokens(explained.text, explanation.shares))
    return json_object(
        pooling=explanation.pooling,
        tokens=_tokens(explained.text, explanation.shares, pair.contributions),
        other=_tokens(explained.other, pair.other_shares, pair.other_contributions),
        similarity=pair.similarity,
        served_similarity=pair.served_similarity,
        attribution="exact" if pair.exact else "by share",
        pairs=[
            {
                "index": i,
                "token": explained.text.tokens[i],
                "other_index": j,
                "other_token": explained.other.tokens[j],
                "contribution": pair.matrix[i, j],
            }
            for i, j in pair.strongest
        ],
        **({"matrix": json_list(pair.matrix)} if matrix else {}),
    )


def _tokens(text: TokenStates, shares: Floats, contributions: Floats | None = None) -> Iterator[bytes]:
    def to_json(index: int, token: str) -> dict[str, Any]:
        start, end = text.offsets[index] or (None, None)
        fields = {"token": token, "start": start, "end": end, "share": shares[index]}
        return fields if contributions is None else fields | {"contribution": contributions[index]}

    return json_list(text.tokens, to_json)
