"""What routes share: the deployment, the limit on the items of a request, and the places of its items."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated

from fastapi import Depends, Request

from service.deployment import Deployment
from service.errors import InvalidInput, Place, TooLarge


async def _deployment(request: Request) -> Deployment:  # FastAPI runs plain functions in a thread pool
    deployment: Deployment = request.app.state.deployment
    return deployment


Served = Annotated[Deployment, Depends(_deployment)]


def check_count(served: Deployment, count: int, field: str) -> None:
    """Check the number of items in a request.

    Raises:
        InvalidInput: there are none.
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


def places(field: str, *, several: bool) -> Callable[[int], Place]:
    """Return the function from an index to the place of that item: `field[index]`, or `field` for a single item."""
    return partial(Place, field) if several else lambda _: Place(field)
