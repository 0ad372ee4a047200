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


PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    400: {"model": Problem, "description": "The body is not JSON in UTF-8"},
    404: {"model": Problem, "description": "Unknown model"},
    413: {"model": Problem, "description": "A text too long, or too many texts"},
    422: {"model": Problem, "description": "Invalid input"},
    503: {"model": Problem, "description": "The queue is full; try again after `Retry-After` seconds"},
    504: {"model": Problem, "description": "The request was not done within the time that it had"},
}
