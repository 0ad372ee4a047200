"""The base class of requests, and fields that several of them have."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator
from pydantic_core import PydanticCustomError

from service.errors import did_you_mean, shortened

PoolingSpec = Annotated[
    str | dict[str, Any] | list[Any],
    Field(description="Another pooling than the model's own, such as `cls`, `gem(p=3)` or `mean + max`."),
]

Truncate = Annotated[bool, Field(description="Cut a text that is too long instead of refusing it.")]

# Validation stops at the first bad item: a list of a million would produce a million errors.
Texts = Annotated[list[str], Field(fail_fast=True)]

TokenIds = Annotated[list[int], Field(fail_fast=True)]

SENTENCES: list[JsonValue] = ["A man is playing a harp.", "A man is playing a keyboard."]


class Request(BaseModel):
    """A request body; unknown fields and other types are errors, so that a mistake never goes unnoticed."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _reject_unknown_fields(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.keys() <= cls.__pydantic_fields__.keys():
            key = next(key for key in data if key not in cls.__pydantic_fields__)
            raise PydanticCustomError(
                "unknown_field",
                "{key} is not a field here.{hint} Fields are: {known}.",
                {
                    "key": shortened(key),
                    "field": str(key)[:100],
                    "hint": did_you_mean(str(key), cls.__pydantic_fields__),
                    "known": ", ".join(cls.__pydantic_fields__),
                },
            )
        return data
