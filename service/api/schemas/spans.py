"""How texts are cut into spans, as requests say it."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from service.api.schemas.base import Request
from service.collections.chunking import Chunking
from service.embedding.embedder import MOST_WINDOWED, Mode
from service.embedding.spans import BySentence, ByTokens, Cut

MODE: Final = "`late`: pooled from one pass over the whole text. `early`: each span embedded by itself."


class _Cutting(Request):
    by: str
    tokens: int | None = Field(default=None, ge=1, le=MOST_WINDOWED, description="Tokens of a span.")
    overlap: int = Field(default=0, ge=0, description="Tokens that a span shares with the one before.")

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.by != "tokens" and (self.tokens is not None or self.overlap):
            raise PydanticCustomError("cut", "'by': '{by}' takes neither 'tokens' nor 'overlap'.", {"by": self.by})
        if self.by == "tokens" and self.tokens is None:
            raise PydanticCustomError("cut", "by tokens, 'tokens' must say how many; or give 'by': 'sentence'.")
        if self.tokens is not None and self.overlap >= self.tokens:
            raise PydanticCustomError(
                "cut",
                "'overlap' must be less than 'tokens', and {overlap} is not less than {tokens}.",
                {"overlap": self.overlap, "tokens": self.tokens},
            )
        return self


class CutBody(_Cutting):
    """How texts are cut into spans: by tokens, or by sentence."""

    by: Literal["tokens", "sentence"] = "tokens"

    @property
    def cut(self) -> Cut:
        """What cuts so."""
        return BySentence() if self.tokens is None else ByTokens(self.tokens, self.overlap)


class ChunkingBody(_Cutting):
    """How the documents of a collection are cut into spans, each with a vector of its own."""

    by: Literal["tokens", "sentence", "given"] = Field(
        default="tokens", description="`given`: each document comes with its `spans`."
    )
    mode: Mode = Field(default="late", description=MODE)

    @property
    def chunking(self) -> Chunking:
        """What cuts so."""
        return Chunking(self.by, self.mode, self.tokens, self.overlap)


def _kind_of_spans(value: Any) -> str | None:
    """Which of the three a request means, so that an error speaks of that one alone."""
    if isinstance(value, dict | CutBody):
        return "dict"
    if not isinstance(value, list):
        return None
    first = value[0] if value else None
    return "list of lists" if isinstance(first, list) and first and isinstance(first[0], list) else "list of spans"


SpanBody = Annotated[list[int], Field(min_length=2, max_length=2)]

SpansOfText = Annotated[list[SpanBody], Field(fail_fast=True)]

Spans = Annotated[
    Annotated[CutBody, Tag("dict")]
    | Annotated[SpansOfText, Tag("list of spans")]
    | Annotated[list[SpansOfText], Field(fail_fast=True), Tag("list of lists")],
    Discriminator(
        _kind_of_spans,
        custom_error_type="spans",
        custom_error_message='give spans as [[start, end], ...], {"tokens": n, "overlap": m} or {"by": "sentence"}',
    ),
]
