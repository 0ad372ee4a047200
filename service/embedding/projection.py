"""Vectors as points of a plane: their first two principal components."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.arrays import Vectors
from service.deadline import in_time
from service.embedding.models import Models
from service.embedding.viewing import Viewing
from service.errors import InvalidInput, Place, TooLarge

Points = NDArray[np.float64]
"""Places in the plane, (points, 2)."""

MOST_PROJECTED: Final = 2_000
"""Most texts of one request."""
MOST_PLANES: Final = 8
"""Most poolings of one request, for each of which its axes are found."""
MOST_NUMBERS: Final = 2**24
"""Most numbers of the vectors that one request projects, of all poolings together."""
_ROUNDED: Final = 1e-6
"""The share of the vectors' own size below which what sets them apart is rounding, of float32."""
_NOTHING: Final = 1e-12
"""The share of the variance below which an axis is rounding, of the products in float64."""
_TIED: Final = 1 - 1e-6
"""The share of the longest way along an axis from which on a vector counts as furthest along it too."""
_PROJECTING: Final = ThreadPoolExecutor(max_workers=1, thread_name_prefix="project")


@dataclass(frozen=True, slots=True)
class Plane:
    """Vectors in the plane of their first two principal components.

    Args:
        points: their places, (vectors, 2), around the origin, at a root mean square distance of one from it.
        explained: the share of the vectors' variance along each of the two axes.
    """

    points: Points
    explained: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Projected:
    """Texts in the plane under one pooling."""

    pooling: str
    plane: Plane


def project(vectors: Vectors) -> Plane:
    """Find the plane in which vectors (vectors, dim) lie furthest apart, and their places in it.

    They are found exactly, in double precision, of the smaller one of the covariance and the products of the vectors.
    Each axis points to where the first of the vectors that are furthest along it is, so that equal vectors have equal
    places. Where all are equal, or there is but one axis, what is left is zeros.
    """
    found = np.zeros((len(vectors), 2))
    shares = [0.0, 0.0]
    centred = vectors.astype(np.float64)
    largest = np.abs(centred).max(initial=0)
    if largest:
        centred /= largest  # so that no square is beyond its type
        size = np.linalg.norm(centred)
        centred -= centred.mean(0)
        spread = np.linalg.norm(centred)
        if spread > _ROUNDED * size:
            for axis, (share, places) in enumerate(_principal(centred / spread)):
                if share > _NOTHING:
                    shares[axis] = min(share, 1.0)
                    found[:, axis] = _directed(places)
            found /= np.sqrt((found**2).sum(1).mean())
    return Plane(found, (shares[0], shares[1]))


def _principal(centred: Points) -> list[tuple[float, Points]]:
    """Return the two largest variances of vectors (vectors, dim), or the only one, and the places along their axes.

    No other is computed: a decomposition of all takes many times as long.
    """
    from scipy.linalg import eigh  # not before it is used: it takes long to import

    wide = centred.shape[0] < centred.shape[1]
    products = centred @ centred.T if wide else centred.T @ centred
    size = len(products)
    variances, axes = eigh(products, subset_by_index=[max(size - 2, 0), size - 1])
    return [
        (float(variance), axis * np.sqrt(max(variance, 0)) if wide else centred @ axis)
        for variance, axis in zip(variances[::-1], axes.T[::-1], strict=True)
    ]


def _directed(places: Points) -> Points:
    """Return places along an axis, mirrored where the first of the furthest ones is below 0."""
    far = np.abs(places)
    return places if places[int(np.argmax(far >= _TIED * far.max()))] >= 0 else -places


def turned(points: Points, to: Points) -> Points:
    """Turn points about the origin, and mirror them if need be, to where they are nearest to others of as many.

    By the orthogonal Procrustes problem: of all rotations and reflections the one with the least sum of squares.
    """
    left, _, right = np.linalg.svd(points.T @ to)
    found: Points = points @ left @ right
    return found


async def project_texts(
    models: Models,
    viewing: Viewing,
    texts: Sequence[str],
) -> tuple[str, list[Projected]]:
    """Project texts under each of several poolings, from one pass of the encoder; return the model's name too.

    Texts that are equal are embedded once. The points of each pooling after the first are turned to where they are
    nearest to the first one's.

    Args:
        models: the served models.
        viewing: the poolings that the texts are seen under, and how they are read.
        texts: the texts.

    Raises:
        ServiceError: as `Embedder.embed`, or the request exceeds a limit.
    """
    if not 2 <= len(texts) <= MOST_PROJECTED:
        raise InvalidInput(
            f"{len(texts)} texts are sent; one request projects from 2 to {MOST_PROJECTED}.", where=Place("texts")
        )
    embedders = viewing.embedders(models, MOST_PLANES)
    prompt_name, role = viewing.asked
    require_numbers(len(texts) * sum(each.dim for each in embedders), Place("texts"))
    own, others = embedders[0], [each.recipe for each in embedders[1:]]
    first: dict[str, int] = {}
    for place, text in enumerate(texts):
        first.setdefault(text, place)
    places = list(first.values())
    vectors = await own.embed_under(
        list(first),
        others,
        prompt_name=prompt_name,
        role=role,
        truncate=viewing.truncate,
        where=lambda row: Place("texts", places[row]),
    )
    row_of = {text: row for row, text in enumerate(first)}
    rows = [row_of[text] for text in texts]
    found: list[Projected] = []
    for embedder, of_pooling in zip(embedders, vectors, strict=True):
        plane = await in_plane(of_pooling[rows])
        if found:
            plane = Plane(turned(plane.points, found[0].plane.points), plane.explained)
        found.append(Projected(embedder.recipe.pooler.spec, plane))
    return own.name, found


async def in_plane(vectors: Vectors) -> Plane:
    """Project vectors (vectors, dim) on a thread, which takes up to some seconds; raises `DeadlineExceeded`."""
    return await in_time(asyncio.get_running_loop().run_in_executor(_PROJECTING, project, vectors))


def require_numbers(count: int, where: Place) -> None:
    """Raise `TooLarge` for more numbers than one request projects."""
    if count > MOST_NUMBERS:
        raise TooLarge(
            f"the vectors have {count} numbers together, and one request projects {MOST_NUMBERS}. Send "
            "fewer of them, or ask for fewer or smaller poolings.",
            where=where,
            limit=MOST_NUMBERS,
        )


def to_json(plane: Plane) -> dict[str, Any]:
    """Return a plane as JSON has it."""
    return {"explained": list(plane.explained), "points": plane.points.astype(np.float32)}
