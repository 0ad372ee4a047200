"""`/rerank` and `/predict` of text-embeddings-inference: cross-encoders that score texts and pairs of texts."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from fastapi import APIRouter, Response
from numpy.typing import NDArray

from service.api.lean import LeanRoute
from service.api.requests import Served, check_count, places
from service.api.responses import json_list, json_list_of, response_in_parts
from service.api.schemas.problem import UNKNOWN_MODEL, problem
from service.api.schemas.ranking import PredictionBody, PredictRequest, RankBody, RerankRequest, ScoreOptions
from service.api.vectors import TRUNCATED, truncation
from service.ranking import Reranker, Scored

_NONE: Final = problem(424, "No such model is served")

router = APIRouter(tags=["text-embeddings-inference"], route_class=LeanRoute)


@router.post("/rerank", response_model=list[RankBody], responses=UNKNOWN_MODEL | TRUNCATED | _NONE)
async def rerank(body: RerankRequest, served: Served) -> Response:
    """Texts by how well they answer a query, the best first, with the score that a cross-encoder gives each pair."""
    check_count(served, len(body.texts), "texts")
    reranker = served.rerankers.get(body.model)
    found = await reranker.rank(body.query, body.texts, truncate=body.cut(reranker))
    scores = _scores(found, body, reranker)[:, 0]

    def to_json(_: int, place: int) -> dict[str, Any]:
        text = {"text": body.texts[place]} if body.return_text else {}
        return {"index": int(place), "score": scores[place], **text}

    order = np.argsort(-scores, kind="stable")
    return await response_in_parts(json_list(order, to_json), headers=truncation(found.truncated))


@router.post(
    "/predict",
    response_model=list[PredictionBody] | list[list[PredictionBody]],
    responses=UNKNOWN_MODEL | TRUNCATED | _NONE,
)
async def predict(body: PredictRequest, served: Served) -> Response:
    """The labels of each text, or pair of texts, with their scores, the highest first."""
    items, several = body.items
    check_count(served, len(items) if body.inputs else 0, "inputs")
    reranker = served.rerankers.get(body.model)
    found = await reranker.predict(items, truncate=body.cut(reranker), where=places("inputs", several=several))

    def labelled(scores: NDArray[np.float32]) -> list[dict[str, Any]]:
        order = np.argsort(-scores, kind="stable").tolist()
        return [{"label": reranker.recipe.labels[at], "score": scores[at]} for at in order]

    every = _scores(found, body, reranker)
    lists = (json_list(labelled(scores)) for scores in every)
    answer = json_list_of(lists) if several else next(lists)
    return await response_in_parts(answer, headers=truncation(found.truncated))


def _scores(found: Scored, options: ScoreOptions, reranker: Reranker) -> NDArray[np.float32]:
    return found.logits if options.raw_scores else reranker.normalized(found.logits)
