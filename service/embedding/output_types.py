"""The types of numbers that vectors are given in, as sentence-transformers' `quantize_embeddings` makes them."""

from __future__ import annotations

import math
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from service.arrays import Vectors
from service.errors import InvalidInput, Place

OutputType = Literal["float32", "float", "float16", "int8", "uint8", "binary", "ubinary"]
"""`binary` and `ubinary` have one bit a dimension; `float` is `float32`, as some clients call it."""
_SPREAD: Final = 8.0
"""How many times the root mean square of a unit vector's numbers fits into the range of int8, either way."""


def largest(dim: int) -> float:
    """Return the largest number of a unit vector that int8 and uint8 tell from others."""
    return min(1.0, _SPREAD / math.sqrt(dim))


def converted(vectors: Vectors, wanted: OutputType, *, normalized: bool) -> NDArray[Any]:
    """Return vectors (n, dim) in a type: (n, dim), or for `binary` and `ubinary` (n, dim / 8), rounded up.

    The steps of int8 and uint8 divide the range from -`largest` to `largest`, in each dimension and for all vectors,
    so that a vector is the same whatever it came with.

    Args:
        vectors: float32.
        wanted: the type.
        normalized: whether the vectors have length one, or less where dimensions were cut off after that.

    Raises:
        InvalidInput: int8 or uint8 are wanted of vectors of any length, which have no range; or float16 of numbers
            that it does not have.
    """
    match wanted:
        case "float32" | "float":
            return vectors
        case "float16":
            with np.errstate(over="ignore"):
                halves = vectors.astype(np.float16)
            if not np.isfinite(halves).all():
                raise InvalidInput(
                    'a vector has numbers beyond float16. Choose another type, or send "normalize": true.',
                    where=Place("output_dtype"),
                )
            return halves
        case "ubinary":
            return np.packbits(vectors > 0, axis=-1)
        case "binary":
            return (np.packbits(vectors > 0, axis=-1) ^ 0x80).view(np.int8)
    if not normalized:
        raise InvalidInput(
            f'{wanted} is for vectors of length one, whose numbers have a range. Send "normalize": true, or choose '
            "another type.",
            where=Place("output_dtype"),
        )
    start = np.float32(-largest(vectors.shape[1]))
    step = (-start - start) / np.float32(255)
    steps: NDArray[np.uint8] = np.clip(np.floor((vectors - start) / step), 0, 255).astype(np.uint8)
    return steps if wanted == "uint8" else (steps ^ 0x80).view(np.int8)
