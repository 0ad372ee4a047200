"""`/explain`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field, JsonValue

from service.api.schemas.fields import SENTENCES, PlacedToken, PoolingsRequest, examples


class ExplainRequest(PoolingsRequest):
    """A text to explain, or two of which the similarity is explained."""

    model_config = examples(
        {"text": SENTENCES[0], "pooling": ["mean", "max"]}, {"text": SENTENCES[0], "other": SENTENCES[1]}
    )

    text: str
    other: str | None = Field(default=None, description="Explain what makes `text` similar to this one.")
    other_input_type: str | None = Field(
        default=None, description="The same of `other` by itself: of a query and a document, say."
    )
    matrix: bool = Field(default=False, description="With `other`: give what each pair of tokens contributes.")


class ExplainedToken(PlacedToken):
    """A token, where it stands, and what it gave."""

    share: float = Field(description="Of the pooled vector; the shares of a text add up to one.")
    contribution: float | None = Field(
        default=None, description="To the similarity of two texts, which those of either text add up to."
    )


class ExplainedPair(BaseModel):
    """Two tokens and what they contribute to the similarity; places count from 0."""

    index: int
    token: str
    other_index: int
    other_token: str
    contribution: float


class ExplanationBody(BaseModel):
    """What each token gave under one strategy; all but the first two fields with `other` alone."""

    pooling: str
    tokens: list[ExplainedToken]
    other: list[ExplainedToken] | None = None
    similarity: float | None = Field(default=None, description="The cosine of the two pooled vectors.")
    served_similarity: float | None = Field(
        default=None, description="The cosine of the vectors as /embed gives them, behind `head`."
    )
    attribution: Literal["exact", "by share"] | None = Field(
        default=None,
        description="`exact`: the terms of the sum that the similarity is. `by share`: the strategy is no weighted "
        "sum (gem, say), and each dimension of its vector is divided by the tokens' shares of it.",
    )
    pairs: list[ExplainedPair] | None = Field(default=None, description="Those that contribute most, either way.")
    matrix: list[list[float]] | None = Field(
        default=None, description="What each token (row) contributes with each of the other text (column)."
    )


class ExplainedBody(BaseModel):
    """One explanation a strategy, in the order asked for."""

    model: str
    layers: dict[str, JsonValue] | None = Field(
        default=None, description="Whose states are pooled, where it is not the last layer's alone."
    )
    head: str | None = Field(
        description="What comes between the pooled vector, which is explained, and the served one; null: nothing."
    )
    explanations: list[ExplanationBody]
    truncated: list[Literal["text", "other"]] | None = Field(
        default=None, description="Which of the texts were cut, if any were."
    )
