"""Fields that several requests have."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field, JsonValue

PoolingSpec = Annotated[
    str | dict[str, Any] | list[Any],
    Field(description="Another pooling than the model's own, such as `cls`, `gem(p=3)` or `mean + max`."),
]

Truncate = Annotated[bool, Field(description="Cut a text that is too long instead of refusing it.")]

# Validation stops at the first bad item: a list of a million would produce a million errors.
Texts = Annotated[list[str], Field(fail_fast=True)]

TokenIds = Annotated[list[int], Field(fail_fast=True)]


def examples(*bodies: JsonValue) -> ConfigDict:
    """Return the settings of a request body with examples for the OpenAPI document."""
    return ConfigDict(json_schema_extra={"examples": list(bodies)})


SENTENCES: list[JsonValue] = ["A man is playing a harp.", "A man is playing a keyboard."]
