"""Static models: instead of an encoder, a table with a vector for each token, of either maker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ConfigDict, Field

from service.checkpoint.declarations import Declaration
from service.checkpoint.weights import Shape, shapes
from service.errors import CheckpointError

WEIGHTS: Final = "model.safetensors"
"""The file that holds the table."""
_OF_SENTENCE_TRANSFORMERS: Final = "embedding.weight"
_OF_MODEL2VEC: Final = "embeddings"
_NUMBERS: Final = {"F64", "F32", "F16", "BF16", "I8"}
_INDICES: Final = {"I64", "I32", "I16", "I8", "U8", "U16", "U32"}


class Model2VecSettings(Declaration):
    """What the `config.json` of model2vec says of texts and vectors; its other keys say how the table was made."""

    model_config = ConfigDict(extra="ignore")

    normalize: bool = False
    max_length: int | None = Field(default=512, ge=1)


@dataclass(frozen=True, slots=True)
class Table:
    """Where the vectors of tokens are in `model.safetensors`.

    Args:
        path: the file.
        key: the tensor of vectors, (vectors, dim).
        rows: tokens that have one.
        dim: numbers of a vector.
        mapped: whether `mapping`, (rows,), says which vector a token has.
        weighted: whether `weights`, (rows,), are what a token's vector is multiplied by.
    """

    path: Path
    key: str
    rows: int
    dim: int
    mapped: bool
    weighted: bool

    @property
    def of_model2vec(self) -> bool:
        """Whether model2vec made it, which leaves unknown tokens out of a text."""
        return self.key == _OF_MODEL2VEC


def is_model2vec(folder: Path, config: Mapping[str, Any]) -> bool:
    """Whether a folder without `modules.json` is one of model2vec; older ones only show it by their weights."""
    if config.get("model_type") is not None:
        return bool(config["model_type"] == "model2vec")
    path = folder / WEIGHTS
    return path.is_file() and not config.get("architectures") and _OF_MODEL2VEC in shapes(path)


def read_table(folder: Path) -> Table:
    """Find the table in a folder by the header of its weights; no number is read.

    Raises:
        CheckpointError: there is none, it is damaged, or its parts do not fit together.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        others = ", ".join(file.name for file in sorted(folder.glob("*.bin"))) or "no weights at all"
        raise CheckpointError(
            f"{folder}: has no {WEIGHTS} (there is {others}). Pickled weights can run code when loaded and are never "
            "read; save the model with safetensors (`model.save_pretrained(folder)`)."
        )
    found = shapes(path)
    key = next((name for name in (_OF_SENTENCE_TRANSFORMERS, _OF_MODEL2VEC) if name in found), None)
    if key is None:
        raise CheckpointError(
            f"{path}: holds no table of vectors, which is {_OF_SENTENCE_TRANSFORMERS!r} in a StaticEmbedding and "
            f"{_OF_MODEL2VEC!r} in model2vec, but {', '.join(sorted(found)[:3]) or 'nothing'}. Get the folder anew."
        )
    vectors = _of_kind(path, found, key, 2, _NUMBERS)
    mapping, weights = (
        _of_kind(path, found, name, 1, kinds) if key == _OF_MODEL2VEC and name in found else None
        for name, kinds in (("mapping", _INDICES), ("weights", _NUMBERS))
    )
    rows = mapping.sizes[0] if mapping else vectors.sizes[0]
    if weights and weights.sizes[0] != rows:
        raise CheckpointError(
            f"{path}: 'weights' are of {weights.sizes[0]} tokens, and {'mapping' if mapping else key!r} is of {rows}"
            ", so the two are not of one model. Get the file anew."
        )
    return Table(path, key, rows, vectors.sizes[1], mapping is not None, weights is not None)


def _of_kind(path: Path, found: Mapping[str, Shape], name: str, dimensions: int, kinds: set[str]) -> Shape:
    shape = found[name]
    if len(shape.sizes) != dimensions or shape.kind not in kinds or 0 in shape.sizes:
        raise CheckpointError(
            f"{path}: {name!r} is {' x '.join(map(str, shape.sizes)) or 'one number'} of {shape.kind}, and should "
            f"have {dimensions} dimension{'s' if dimensions > 1 else ''} of {', '.join(sorted(kinds))}. Get it anew."
        )
    return shape
