"""What the routes work on, and the limit on how much one request may hold."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from service.deployment import Deployment
from service.errors import InvalidInput, Place, TooLarge


async def _of(request: Request) -> Deployment:  # FastAPI would run a plain function on another thread
    deployment: Deployment = request.app.state.deployment
    return deployment


Served = Annotated[Deployment, Depends(_of)]


def check_count(served: Deployment, count: int, field: str) -> None:
    """Refuse an empty list, and one that is longer than this deployment takes.

    Raises:
        InvalidInput: nothing was sent.
        TooLarge: more than `server.max_texts`.

    """
    limit = served.config.server.max_texts
    if count == 0:
        raise InvalidInput(f"{field} is empty; send at least one.", where=Place(field))
    if count > limit:
        raise TooLarge(
            f"{field} holds {count} and one request takes {limit} (server.max_texts); send them in parts.",
            where=Place(field),
            limit=limit,
        )
