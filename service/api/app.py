"""The ASGI application: routes over a deployment."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from service import __version__
from service.api import errors
from service.api.routes import collections, doctor, embed, explain, openai, status
from service.deployment import Deployment
from service.process import freeze_and_trim

DESCRIPTION = """Sentence embeddings and semantic search in which pooling is a visible, verified choice.

Errors are problem documents (RFC 9457); under `/v1` they have OpenAI's shape.
"""


def create_app(served: Deployment) -> FastAPI:
    """Return the ASGI application; its shutdown closes the deployment."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        freeze_and_trim()
        try:
            yield
        finally:
            await served.examinations.close()
            served.close()

    app = FastAPI(title="Millpond", version=__version__, description=DESCRIPTION, lifespan=lifespan)
    app.state.deployment = served
    errors.install(app)
    for module in (embed, explain, openai, collections, status, doctor):
        app.include_router(module.router)
    app.include_router(collections.search_router)
    errors.document(app)
    return app
