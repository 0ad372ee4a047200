"""`/compare`."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field, JsonValue

from service.api.requests import Body
from service.api.schemas.fields import SENTENCES, InputType, LayersSpec, PoolingSpec, examples


class CompareRequest(Body):
    """Texts, and the poolings to see them under."""

    model_config = examples({"texts": SENTENCES[:2], "pooling": ["mean", "max"]})

    texts: list[str]
    pooling: PoolingSpec | None = Field(
        default=None, description="A strategy, or a list of several; null, there too, is the model's own."
    )
    layers: LayersSpec | None = None
    model: str | None = None
    truncate: bool | None = Field(
        default=None, description="Cut a text that is too long instead of refusing it; as configured unless given."
    )
    prompt_name: str | None = Field(default=None, description="A prompt of the model, put before each text.")
    input_type: InputType = None
    numbers: int = Field(default=8, ge=0, le=65_536, description="How many leading numbers of each vector are given.")

    @property
    def poolings(self) -> list[str | dict[str, Any] | list[Any] | None]:
        """Each strategy asked for; None is the model's own."""
        return self.pooling if isinstance(self.pooling, list) else [self.pooling]


class ComparedToken(BaseModel):
    """A token, and where it stands."""

    token: str
    start: int | None = Field(description="Where in the text its characters begin; null for special tokens.")
    end: int | None = Field(description="Where they end; null for special tokens.")


class ComparedText(BaseModel):
    """The tokens of a text, which its shares belong to."""

    tokens: list[ComparedToken]
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
