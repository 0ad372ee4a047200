"""Problem documents, the error responses of every route."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel, Field, JsonValue


class Problem(BaseModel):
    """A problem document (RFC 9457), with the members that text-embeddings-inference's clients read."""

    type: str
    title: str
    status: int
    detail: str
    code: str = Field(description="The kind of error, for programs.")
    error: str = Field(description="The same as `detail`.")
    error_type: Literal["Unhealthy", "Backend", "Overloaded", "Validation", "Tokenizer", "Empty"] = Field(
        description="The kind of error as text-embeddings-inference names it."
    )
    where: str | None = Field(default=None, description="The part of the input at fault, such as `inputs[3]`.")
    place: dict[str, JsonValue] | None = Field(
        default=None, description="The same in parts: `field`, and `index` and `span` where they apply."
    )
    errors: list[dict[str, JsonValue]] | None = Field(
        default=None,
        description="Each of several faults of one request: `where`, `detail`, and `code` of a document.",
    )


def problem(status: int, description: str) -> dict[int | str, dict[str, Any]]:
    """Return an error of a route for the OpenAPI document, which tells by itself of those that others have too."""
    return {status: {"model": Problem, "description": description}}


UNKNOWN_MODEL: Final = problem(404, "Unknown model")
