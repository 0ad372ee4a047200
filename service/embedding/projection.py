"""Vectors as points of a plane: their first two principal components."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pooling.layers import LayerSpec
from service.arrays import Vectors
from service.embedding.explain import Asked, embedder_of, require_count
from service.embedding.models import Models
from service.embedding.recipe import Spec
from service.encoder.reading import Cut
from service.errors import InvalidInput, Place, TooLarge

Points = NDArray[np.float64]
"""Places in the plane, (points, 2)."""

MOST_PROJECTED: Final = 2_000
"""Most texts of one request."""
MOST_PLANES: Final = 8
"""Most poolings of one request, for each of which its axes are found."""
MOST_NUMBERS: Final = 2**24
"""Most numbers of the vectors that one request projects, of all poolings together."""
_NOTHING: Final = 1e-9
"""The share of the vectors' own size below which what sets them apart is rounding."""
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

    Each axis points to where the vector that is furthest along it is, so that equal vectors have equal places. Where
    all are equal, or there is but one axis, what is left is zeros.
    """
    found = np.zeros((len(vectors), 2))
    if not len(vectors):
        return Plane(found, (0.0, 0.0))
    centred = vectors.astype(np.float64) - vectors.mean(0, dtype=np.float64)
    size = np.linalg.norm(vectors)
    left, spread, _ = np.linalg.svd(centred, full_matrices=False)
    total = float((spread**2).sum())
    if not total or np.sqrt(total) <= _NOTHING * size:
        return Plane(found, (0.0, 0.0))
    axes = min(2, int((spread > _NOTHING * spread[0]).sum()))
    found[:, :axes] = left[:, :axes] * spread[:axes]
    furthest = found[np.abs(found).argmax(0), [0, 1]]
    found *= np.where(furthest < 0, -1, 1)
    found /= np.sqrt((found**2).sum(1).mean())
    shares = np.zeros(2)
    shares[:axes] = spread[:axes] ** 2 / total
    return Plane(found, (float(shares[0]), float(shares[1])))


def turned(points: Points, to: Points) -> Points:
    """Turn points about the origin, and mirror them if need be, to where they are nearest to others of as many.

    By the orthogonal Procrustes problem: of all rotations and reflections the one with the least sum of squares.
    """
    left, _, right = np.linalg.svd(points.T @ to)
    found: Points = points @ left @ right
    return found


async def project_texts(
    models: Models,
    texts: Sequence[str],
    *,
    poolings: Sequence[Spec | None] = (None,),
    layers: LayerSpec | None = None,
    model: str | None = None,
    truncate: Cut = None,
    asked: Asked = (None, None),
) -> tuple[str, list[Projected]]:
    """Project texts under each of several poolings, from one pass of the encoder; return the model's name too.

    The points of each pooling after the first are turned to where they are nearest to the first one's.

    Args:
        models: the served models.
        texts: the texts.
        poolings: the poolings; None is the model's own.
        layers: whose states each of them pools; None are the model's own.
        model: name of the model; None is the default one.
        truncate: the side at which a text that is too long is cut; False refuses it, None does as configured.
        asked: the prompt's name, and what the texts are for.

    Raises:
        ServiceError: as `Embedder.embed`, or the request exceeds a limit.
    """
    require_count(poolings, MOST_PLANES)
    if not 2 <= len(texts) <= MOST_PROJECTED:
        raise InvalidInput(
            f"{len(texts)} texts are sent; one request projects from 2 to {MOST_PROJECTED}.", where=Place("texts")
        )
    prompt_name, role = asked
    embedders = [embedder_of(models, model, spec, layers).of(role, prompt_name) for spec in poolings]
    require_numbers(len(texts) * sum(each.dim for each in embedders), Place("texts"))
    own, others = embedders[0], [each.recipe for each in embedders[1:]]
    where = partial(Place, "texts")
    vectors = await own.embed_under(texts, others, prompt_name=prompt_name, role=role, truncate=truncate, where=where)
    found: list[Projected] = []
    for embedder, of_pooling in zip(embedders, vectors, strict=True):
        plane = await in_plane(of_pooling)
        if found:
            plane = Plane(turned(plane.points, found[0].plane.points), plane.explained)
        found.append(Projected(embedder.recipe.pooler.spec, plane))
    return own.name, found


async def in_plane(vectors: Vectors) -> Plane:
    """Project vectors (vectors, dim) on a thread: it takes up to some seconds."""
    return await asyncio.get_running_loop().run_in_executor(_PROJECTING, project, vectors)


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
