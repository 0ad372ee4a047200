"""From the inputs of a request to the vectors of its answer, in the type and the encoding that it asks for."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from numpy.typing import NDArray

from service.api.requests import check_count, places
from service.api.schemas.fields import VectorOptions, listed
from service.arrays import Vectors
from service.deployment import Deployment
from service.embedding.embedder import Embedder
from service.embedding.output_types import converted
from service.embedding.token_ids import read_ids

_TRUNCATED_HEADER: Final = "X-Truncated"
_FINGERPRINT_HEADER: Final = "X-Fingerprint"
TRUNCATED: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "headers": {
            _TRUNCATED_HEADER: {"description": "How many texts were cut, if any.", "schema": {"type": "integer"}}
        }
    }
}
"""What answers to texts that may be cut have in the OpenAPI document besides their content."""
VECTORS: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "headers": {
            **TRUNCATED[200]["headers"],
            _FINGERPRINT_HEADER: {
                "description": "Of what made all the vectors: model, pooling and prompts, as `/info` has it.",
                "schema": {"type": "string"},
            },
        }
    }
}
"""What answers of vectors have there."""


@dataclass(frozen=True, slots=True)
class Made:
    """Vectors (texts, dim) in the type that was asked for, the tokens read for them, the indices of texts that were
    cut, and the fingerprint of what made them.
    """

    vectors: NDArray[Any]
    tokens: int
    truncated: list[int]
    fingerprint: str

    @property
    def headers(self) -> dict[str, str]:
        """What the answer says of them."""
        return {_FINGERPRINT_HEADER: self.fingerprint, **truncation(self.truncated)}


async def embedded(inputs: str | Sequence[Any], options: VectorOptions, served: Deployment, field: str) -> Made:
    """Embed the inputs of a request as it asks; the vectors have the type that it asks for.

    Args:
        inputs: a text or several, each as it is written or as token ids.
        options: how.
        served: the deployment.
        field: where the request has its inputs.

    Raises:
        ServiceError: as `Embedder.embed`, or token ids are not taken, or there are no inputs or too many.
    """
    texts, several = listed(inputs)
    check_count(served, len(texts), field)
    where = places(field, several=several)
    model = served.models.get(options.model, options.pooling, options.layers)
    prompt_name, role = options.purpose(model)
    model = model.of(role, prompt_name)
    embeddings = await model.embed(
        await read_ids(texts, served.token_ids, model.encoder.tokenizer, where),
        prompt_name=prompt_name,
        role=role,
        truncate=options.cut(model),
        normalize=options.normalize,
        dimensions=options.dimensions,
        where=where,
    )
    vectors = typed(embeddings.vectors, options, model)
    return Made(vectors, embeddings.tokens, embeddings.truncated, model.fingerprint)


def typed(vectors: Vectors, options: VectorOptions, model: Embedder) -> NDArray[Any]:
    """Return a model's vectors in the type that a request asks for; raises `InvalidInput` as `converted` does."""
    normalized = model.recipe.normalize if options.normalize is None else options.normalize
    return converted(vectors, options.output_dtype, normalized=normalized)


def encoding(options: VectorOptions) -> Callable[[int, Any], str] | None:
    """Return what makes JSON of each vector, for `json_list`; None where they are JSON as they are."""
    return (lambda _, vector: b64encode(vector).decode()) if options.encoding_format == "base64" else None


def truncation(truncated: Sequence[int]) -> dict[str, str]:
    """Return the header that says how many texts were cut, if any were."""
    return {_TRUNCATED_HEADER: str(len(truncated))} if truncated else {}
