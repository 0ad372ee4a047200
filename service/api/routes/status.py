"""Liveness, readiness, and what is served."""

from __future__ import annotations

import time
from math import isfinite
from typing import Any, Final

from fastapi import APIRouter, Request

import pooling
from service import __version__
from service.api.metrics import RequestFigures
from service.api.middleware.open_requests import OpenRequests, stopping
from service.api.requests import Served
from service.api.routes.embed import MOST_STATES
from service.api.routes.tei import MOST_LISTED
from service.api.schemas.problem import problem
from service.api.schemas.status import ReadyBody
from service.collections.service import MOST_HITS
from service.collections.vectorize import MOST_CHUNKS
from service.cores import available_cores
from service.deployment import Deployment
from service.embedding.embedder import Embedder, RoutedEmbedder
from service.embedding.explain import MOST_TOKENS
from service.embedding.sparse import MOST_WEIGHTS
from service.embedding.windows import MOST_WINDOWED
from service.encoder import Batcher, Encoder
from service.encoder.reading import TOKENIZING_THREADS
from service.errors import Unavailable
from service.process import resident_bytes

_DTYPES: Final = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}

_STARTED: Final = time.monotonic()

router = APIRouter(tags=["status"])


@router.get("/health")
async def health() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/ready", response_model_exclude_none=True, responses=problem(503, "Not able to serve now"))
async def ready(request: Request, served: Served) -> ReadyBody:
    """Every model's queue runs, the store answers, and the service is not being stopped."""
    requests: OpenRequests = request.app.state.requests
    if requests.draining:
        raise stopping()
    if not served.encoders.alive:
        raise Unavailable("an encoder's queue has stopped; restart the service.", retry_after=10)
    return ReadyBody(status="ready", building=await served.collections.building() or None)


@router.get("/info")
async def info(request: Request, served: Served) -> dict[str, Any]:
    """Models, their poolings and fingerprints, rerankers, sparse models, and the limits of this deployment.

    What text-embeddings-inference tells of its one model stands beside, of the default model.
    """
    config = served.config
    return {
        **_as_tei(served),
        "version": __version__,
        "cores": available_cores(),
        "default_model": served.models.default,
        "models": {
            name: {
                "encoder": model.encoder.checkpoint.name,
                "pooling": model.recipe.pooler.spec,
                "layers": model.recipe.layers.spec,
                "declared_pooling": model.recipe.checkpoint.pooling,
                "normalize": model.recipe.normalize,
                "similarity": model.recipe.checkpoint.similarity,
                "dimension": model.dim,
                "matryoshka_dimensions": model.recipe.checkpoint.matryoshka,
                "max_tokens": model.recipe.max_tokens,
                "truncate": model.recipe.truncate,
                "prompts": model.recipe.prompts,
                "default_prompt": model.recipe.default_prompt,
                "fingerprint": model.fingerprint,
                **_of_encoder(model.encoder),
                "unknown_tokens": model.unknown.count,
                "warnings": model.warnings,
                **_routes(model),
            }
            for name, model in served.models
        },
        "default_reranker": served.rerankers.default,
        "rerankers": {
            name: {
                "encoder": reranker.encoder.checkpoint.name,
                "labels": list(reranker.recipe.labels),
                "activation": type(reranker.recipe.activation).__name__,
                "max_tokens": reranker.recipe.max_tokens,
                "truncate": reranker.recipe.truncate,
                **_of_encoder(reranker.encoder),
            }
            for name, reranker in served.rerankers
        },
        "default_sparse": served.sparse.default,
        "sparse": {
            name: {
                "encoder": model.encoder.checkpoint.name,
                "strategy": model.recipe.declared.strategy,
                "activation": model.recipe.declared.activation,
                "most_active": model.recipe.declared.most_active,
                "dimension": model.dim,
                "max_tokens": model.recipe.max_tokens,
                "truncate": model.recipe.truncate,
                "prompts": model.recipe.prompts,
                "default_prompt": model.recipe.default_prompt,
                **_of_encoder(model.encoder),
                "unknown_tokens": model.unknown.count,
                "warnings": list(model.recipe.warnings),
            }
            for name, model in served.sparse
        },
        "poolings": list(pooling.available()),
        "load": _load(request, served),
        "token_ids": config.server.token_ids,
        "limits": {
            "max_texts": config.server.max_texts,
            "max_body_bytes": config.server.max_body_bytes,
            "max_batch_tokens": config.batching.max_batch_tokens,
            "max_queued_tokens": config.batching.max_queued_tokens,
            "max_queued_seconds": config.batching.max_queued_seconds,
            "max_requests": config.server.max_requests,
            "request_timeout": config.server.request_timeout,
            "shutdown_timeout": config.server.shutdown_timeout,
            "max_token_states": MOST_STATES,
            "max_listed_tokens": MOST_LISTED,
            "max_sparse_weights": MOST_WEIGHTS,
            "max_explained_tokens": MOST_TOKENS,
            "max_windowed_tokens": MOST_WINDOWED,
            "max_chunks": MOST_CHUNKS,
            "max_hits": MOST_HITS,
        },
    }


def _load(request: Request, served: Deployment) -> dict[str, Any]:
    """Return how much the process is at, and what it has used and made since it started."""
    requests: OpenRequests = request.app.state.requests
    return {
        "requests": len(requests),
        "resident_bytes": resident_bytes(),
        "cpu_seconds": time.process_time(),
        "uptime_seconds": time.monotonic() - _STARTED,
        "answers": _answers(request.app.state.figures),
        "models": {
            name: {**_queued(model.encoder), "vectors": sum([*model.made.values()])} for name, model in served.models
        },
    }


def _answers(figures: RequestFigures) -> dict[str, Any]:
    """Return how many requests were answered, how many of them failed, and how many took up to so many seconds."""
    failed, answers = figures.work()
    return {
        "total": len(answers),
        "failed": failed,
        "seconds": [[bound, count] for bound, count in answers.cumulative() if isfinite(bound)],
    }


def _queued(encoder: Encoder) -> dict[str, int]:
    """Return what waits for an encoder; models that share one wait for the same."""
    texts, tokens = encoder.batcher.queued
    return {"queued_texts": texts, "queued_tokens": tokens}


def _routes(model: Embedder) -> dict[str, Any]:
    """Return what is told of each route of a model with a Router, and which is the default one."""
    if not isinstance(model, RoutedEmbedder):
        return {}
    routes = {
        name: {
            "encoder": route.encoder.checkpoint.name,
            "pooling": route.recipe.pooler.spec,
            "normalize": route.recipe.normalize,
            "max_tokens": route.recipe.max_tokens,
            "fingerprint": route.fingerprint,
            "backend": route.encoder.runtime.backend,
            "precision": route.encoder.runtime.precision,
        }
        for name, route in model.routes.items()
    }
    return {"routes": routes, "default_route": model.default_route}


def _as_tei(served: Deployment) -> dict[str, Any]:
    """Return what text-embeddings-inference tells, apart from the version."""
    config, default = served.config, served.models.default
    model = served.models.get(default)
    settings = config.models[default]
    return {
        "model_id": settings.encoder,
        "model_sha": settings.revision,
        "model_dtype": _DTYPES.get(model.encoder.runtime.precision, model.encoder.runtime.precision),
        "model_type": {"embedding": {"pooling": model.recipe.pooler.spec}},
        "max_concurrent_requests": config.server.max_requests,
        "max_input_length": model.recipe.max_tokens,
        "max_batch_tokens": config.batching.max_batch_tokens,
        "max_batch_requests": None,
        "max_client_batch_size": config.server.max_texts,
        "auto_truncate": model.recipe.truncate,
        "tokenization_workers": TOKENIZING_THREADS,
        "sha": None,
        "docker_label": None,
    }


def _of_encoder(encoder: Encoder) -> dict[str, Any]:
    """Return what is told of what computes a model, or a reranker, or sparse vectors."""
    return {
        "backend": encoder.runtime.backend,
        "precision": encoder.runtime.precision,
        "streams": encoder.runtime.streams,
        "tokens_per_second": encoder.batcher.tokens_per_second,
        "shapes": _shapes(encoder.batcher),
        "max_state_bytes": encoder.max_state_bytes,
        "runtime_reason": encoder.runtime_reason,
        "agreement_with_fp32": encoder.agreement,
        "trial": encoder.trial,
    }


def _shapes(batcher: Batcher) -> dict[str, int] | None:
    """Return how many shapes of passes are compiled, and how many there are; None where a runtime compiles none."""
    return {"compiled": len(batcher.compiled), "most": batcher.most_compiled} if batcher.most_compiled else None
