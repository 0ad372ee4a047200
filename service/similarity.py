"""Similarities by name: how a search compares vectors. A higher score is a better one, whichever it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray

from service.arrays import Vectors
from service.errors import InvalidVector

Metric = Literal["inner product", "squared distance"]
"""What an index computes; the first is the higher for nearer vectors, the second the lower."""
_LARGEST: Final = 1e15
"""Largest number in a vector whose products, summed over any number of dimensions, stay within float32."""


class Similarity(ABC):
    """One way to compare vectors, with the scores of sentence-transformers' `model.similarity`.

    An index computes a `metric` of `prepared` vectors, and `scores` makes scores of it. Compared by identity.
    """

    name: ClassVar[Any]
    """As checkpoints and collections spell it."""
    summary: ClassVar[str]
    metric: ClassVar[Metric]
    orders_by_distance: ClassVar[bool]
    """Whether prepared vectors that are nearer to a prepared query by distance have the higher scores."""

    @abstractmethod
    def check(self, vectors: Vectors) -> None:
        """Check that finite vectors (n, dim) can be compared; raises `InvalidVector`."""

    def prepared(self, vectors: Vectors) -> Vectors:
        """Return vectors (n, dim) as the metric takes them."""
        return np.ascontiguousarray(vectors, np.float32)

    def scores(self, metric: Vectors) -> Vectors:
        """Return the scores of metrics, in the same shape."""
        return metric

    def of_each_pair(self, vectors: Vectors) -> NDArray[np.float64]:
        """Return the score of each of the vectors (n, dim) with each, (n, n)."""
        prepared = self.prepared(vectors).astype(np.float64)
        products = prepared @ prepared.T
        if self.metric == "inner product":
            return products
        squares = np.diag(products)
        return 0 - np.sqrt(np.maximum(squares[:, None] + squares - 2 * products, 0))


class Cosine(Similarity):
    """The cosine of the angle between two vectors, from -1 to 1."""

    name: ClassVar[Literal["cosine"]] = "cosine"
    summary = "the cosine of the angle between two vectors, whatever their lengths"
    metric = "inner product"
    orders_by_distance = True  # as their lengths are one

    def check(self, vectors: Vectors) -> None:
        """Check that no vector is zero; raises `InvalidVector`."""
        for position in np.flatnonzero(~vectors.any(axis=1)):
            raise InvalidVector(f"vector {position} is all zeros, which has no direction to compare.")

    def prepared(self, vectors: Vectors) -> Vectors:
        """Return a copy of `vectors` (n, dim) with rows of length one."""
        wide = np.array(vectors, np.float64)  # the square of a float32 neither overflows nor vanishes in it
        wide /= np.linalg.norm(wide, axis=1, keepdims=True)
        return wide.astype(np.float32)


class Dot(Similarity):
    """The inner product, which grows with the lengths of both vectors."""

    name: ClassVar[Literal["dot"]] = "dot"
    summary = "their inner product, to which their lengths count"
    metric = "inner product"
    orders_by_distance = False

    def check(self, vectors: Vectors) -> None:
        """Check that no inner product overflows; raises `InvalidVector`."""
        _check_size(vectors)


class Euclidean(Similarity):
    """The Euclidean distance, negated, so that the nearest has the highest score: 0 for equal vectors."""

    name: ClassVar[Literal["euclidean"]] = "euclidean"
    summary = "the distance between them, negated"
    metric = "squared distance"
    orders_by_distance = True

    def check(self, vectors: Vectors) -> None:
        """Check that no squared distance overflows; raises `InvalidVector`."""
        _check_size(vectors)

    def scores(self, metric: Vectors) -> Vectors:
        """Return negated distances of squared ones."""
        return 0 - np.sqrt(metric)  # which is 0 for equal vectors, and not -0


COSINE: Final = Cosine()
SIMILARITIES: Final[dict[str, Similarity]] = {each.name: each for each in (COSINE, Dot(), Euclidean())}


def _check_size(vectors: Vectors) -> None:
    for position in np.flatnonzero(np.abs(vectors).max(axis=1, initial=0) > _LARGEST):
        raise InvalidVector(f"vector {position} holds a number beyond {_LARGEST:g}, whose products leave float32.")
