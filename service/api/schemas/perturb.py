"""`/perturb`."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field, JsonValue

from service.api.requests import Body
from service.api.schemas.fields import SENTENCES, PoolingsRequest, examples
from service.embedding.perturb import MOST_CHANGES, Change

Share = Annotated[float, Field(ge=0, le=1)]


class ChangeBody(Body):
    """What is done to the text, in this order: cut, replaced, swapped, filled up, padded, and noise on its states."""

    noise: float = Field(
        default=0, ge=0, le=2, description="Deviation of what is added to each token state, by the states' mean size."
    )
    filler: int = Field(default=0, ge=0, le=16, description="Sentences that say nothing in particular, appended.")
    swaps: int = Field(default=0, ge=0, le=64, description="Words that change places with the one after them.")
    replaced: Share = Field(default=0, description="Share of tokens that are replaced by others of it, or dropped.")
    keep: Share = Field(default=1, description="Share of the text's tokens that is kept, at least one.")
    padding: int = Field(
        default=0, ge=0, le=256, description="Padding tokens, as far as the model's longest text has room for them."
    )

    @property
    def change(self) -> Change:
        """The change."""
        return Change(**self.model_dump())


class PerturbRequest(PoolingsRequest):
    """A text, what is done to it, and the poolings to see it under."""

    model_config = examples(
        {"text": SENTENCES[0], "changes": [{"noise": 0.5}, {"padding": 16}], "pooling": ["mean", "max"]}
    )

    text: str
    changes: Annotated[
        list[ChangeBody],
        Field(
            fail_fast=True,
            min_length=1,
            max_length=MOST_CHANGES,  # here, as a million would take seconds to read
            description="What is done to the text, each time anew.",
        ),
    ]


class OutcomeBody(BaseModel):
    """What a change makes of the text and its vectors."""

    text: str = Field(description="The text, disturbed.")
    tokens: int = Field(description="How many tokens of it are read, special ones and a prompt's included.")
    padding: int = Field(description="How many padding tokens are behind them.")
    truncated: bool = Field(description="Whether the text was cut to the model's limit.")
    cosines: list[float] = Field(
        description="For each pooling, of the vector as `/embed` gives it to that of the undisturbed text."
    )
    without_mask: float | None = Field(
        description="Of the mean over all states, padding included, to that of the undisturbed text, both before any "
        "head; null where the encoder gives no numbers at padding."
    )


class PerturbedBody(BaseModel):
    """One outcome a change, in the order asked for."""

    model: str
    layers: dict[str, JsonValue] | None = Field(
        default=None, description="Whose states are pooled, where it is not the last layer's alone."
    )
    limit: int = Field(description="Tokens of the longest text that the model takes.")
    tokens: int = Field(description="How many tokens of the undisturbed text are read.")
    poolings: list[str]
    changes: list[OutcomeBody]
