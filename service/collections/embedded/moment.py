"""A collection as it is at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.arrays import Vectors
from service.collections.provenance import Definition
from service.index import IndexView
from service.store.document import checked_vectors


@dataclass(frozen=True, slots=True)
class Moment:
    """A collection as it is at one moment: a rebuild that ends meanwhile changes all three of them."""

    view: IndexView
    definition: Definition
    dim: int
    version: int | None
    """How many changes of its vectors the store has seen."""

    def checked(self, vectors: NDArray[np.floating[Any]]) -> Vectors:
        """Return queries (q, dim) as they are compared; raises `InvalidVector`."""
        queries = checked_vectors(vectors, self.dim)
        self.definition.similarity.check(queries)
        return queries

    def average(self, vectors: Vectors) -> Vectors:
        """Return the vector (dim,) of a document with vectors (n, dim): their average, as they are compared."""
        average: Vectors = (
            vectors[0] if len(vectors) == 1 else self.definition.similarity.prepared(vectors).mean(axis=0)
        )
        return average
