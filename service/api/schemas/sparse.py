"""Requests and answers of `/embed_sparse`, a superset of text-embeddings-inference's."""

from __future__ import annotations

from pydantic import BaseModel, Field

from service.api.schemas.fields import TextOptions, WrittenTexts, examples


class EmbedSparseRequest(TextOptions):
    """Texts whose sparse vectors are asked for."""

    model_config = examples({"inputs": "A man is playing a harp."}, {"inputs": ["A man", "A harp"], "tokens": True})

    inputs: WrittenTexts
    model: str | None = Field(
        default=None, description="One of the config's sparse models; the first one unless given."
    )
    tokens: bool = Field(default=False, description="Answer with the tokens of the vocabulary, too.")


class WeightBody(BaseModel):
    """A token of the vocabulary, and its weight."""

    index: int = Field(description="The token's id.")
    value: float = Field(description="Above 0; tokens that are not listed weigh 0.")
    token: str | None = Field(default=None, description="Where `tokens` asks for it.")
