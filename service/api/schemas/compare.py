"""`/compare`."""

from __future__ import annotations

from pydantic import BaseModel, Field, JsonValue

from service.api.schemas.fields import SENTENCES, PlacedToken, PoolingsRequest, examples


class CompareRequest(PoolingsRequest):
    """Texts, and the poolings to see them under."""

    model_config = examples({"texts": SENTENCES[:2], "pooling": ["mean", "max"]})

    texts: list[str]
    numbers: int = Field(default=8, ge=0, le=65_536, description="How many leading numbers of each vector are given.")


class ComparedText(BaseModel):
    """The tokens of a text, which its shares belong to."""

    tokens: list[PlacedToken]
    prompt: int = Field(description="How many of them, from the first on, are a prompt's that is not pooled.")
    truncated: bool = Field(description="Whether the text was cut to the model's limit.")


class ViewOfText(BaseModel):
    """A text under one strategy."""

    shares: list[float] = Field(description="The share of each token in the vector; they add up to one.")
    norm: float = Field(description="The length of the pooled vector, before any head and before it is normalised.")
    vector: list[float] = Field(description="The leading numbers of the vector as `/embed` gives it.")


class ViewBody(BaseModel):
    """The texts under one strategy."""

    pooling: str
    dimension: int
    texts: list[ViewOfText]
    cosines: list[list[float]] = Field(description="Of the vectors as `/embed` gives them, of each two texts.")


class ComparedBody(BaseModel):
    """The texts, and one view of them a strategy, in the order asked for."""

    model: str
    layers: dict[str, JsonValue] | None = Field(
        default=None, description="Whose states are pooled, where it is not the last layer's alone."
    )
    head: str | None = Field(description="What comes between the pooled vector and the served one; null: nothing.")
    limit: int = Field(description="Tokens of the longest text that the model takes.")
    texts: list[ComparedText]
    views: list[ViewBody]
