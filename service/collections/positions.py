"""Documents of a collection in the plane of the first two principal components of their stored vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from service.arrays import Vectors
from service.collections.service import CollectionService
from service.embedding.projection import Plane, in_plane, require_numbers
from service.errors import Place, TooLarge
from service.store import Stored
from service.store.document import Span
from service.store.filters import AnyFilter

MOST_POINTS: Final = 10_000
"""Most vectors of one answer."""
_LIMIT: Final = Place("limit")
_PAGE: Final = 1_000
"""Documents that are read at once."""


@dataclass(frozen=True, slots=True)
class Positions:
    """Where documents are.

    Args:
        total: how many documents match.
        ids: the document of each point.
        spans: the span of each point; None where documents have one vector each.
        plane: the points.
    """

    total: int
    ids: list[str]
    spans: list[Span] | None
    plane: Plane


async def positions(
    collections: CollectionService,
    name: str,
    limit: int,
    filter: AnyFilter | None = None,  # noqa: A002 - the name it has in the HTTP contract
) -> Positions:
    """Project the first `limit` documents that match, in the order of storing.

    Raises:
        NotFound, InvalidFilter: as for `CollectionService.page`.
        TooLarge: their vectors are too many, or have too many numbers.
    """
    dim = (await collections.get(name)).dim
    stored: list[Stored] = []
    vectors: list[Vectors] = []
    cursor: str | None = None
    points = 0
    while len(stored) < limit:
        page = await collections.page(
            name, min(_PAGE, limit - len(stored)), cursor=cursor, filter=filter, vectors=True
        )
        stored += page.documents
        own = [each.vectors for each in page.documents if each.vectors is not None]
        points += sum(map(len, own))
        _check(points, dim)
        vectors += own
        cursor = page.cursor
        if cursor is None:
            break
    plane = await in_plane(np.concatenate(vectors) if vectors else np.empty((0, dim), np.float32))
    spans = [span for each in stored for span in each.document.spans or ()]
    return Positions(
        total=await collections.count(name, filter),
        ids=[each.document.id for each in stored for _ in range(0 if each.vectors is None else len(each.vectors))],
        spans=spans or None,
        plane=plane,
    )


def _check(points: int, dim: int) -> None:
    if points > MOST_POINTS:
        raise TooLarge(
            f"these documents have more than {MOST_POINTS} vectors, the most that one answer has; lower 'limit', or "
            "send a filter.",
            where=_LIMIT,
            limit=MOST_POINTS,
        )
    require_numbers(points * dim, _LIMIT)
