"""Spans in requests: given ones, and how to cut texts into them."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Annotated, Any, Final, Self

from pydantic import Discriminator, Field, GetCoreSchemaHandler, Tag, create_model, model_validator
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from service.api.requests import Body
from service.embedding.chunkers import CHUNKERS, OPTIONS, Chunker, build
from service.embedding.chunking import GIVEN, Chunking, Mode
from service.errors import InvalidInput

MODE: Final = "`late`: pooled from one pass over the whole text. `early`: each span embedded by itself."
_OPTIONS: Final[dict[str, Any]] = {
    name: (int | None, Field(default=None, **option.metadata))
    if option.default is MISSING
    else (int, Field(default=option.default, **option.metadata))
    for name, option in OPTIONS.items()
}


class _OneOf:
    """A type like `Literal`, for names known only at run time."""

    def __init__(self, *names: str) -> None:
        self._names = list(names)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.literal_schema(self._names)


class _Cutting(create_model("_Cutting", __base__=Body, by=(str, ...), **_OPTIONS)):  # type: ignore[misc]  # as registered
    def parsed(self) -> Chunker | Chunking:
        """Return what the request describes; raises `InvalidInput` if its fields contradict each other."""
        raise NotImplementedError

    def _options(self) -> dict[str, int]:
        """Return the options given; one of another chunker counts only if it is not at its default."""
        own = {option.name for option in fields(CHUNKERS[self.by])} if self.by in CHUNKERS else set()
        given = {name: getattr(self, name) for name in OPTIONS if name in self.model_fields_set}
        return {
            name: value
            for name, value in given.items()
            if value is not None and (name in own or value != _OPTIONS[name][1].default)
        }

    @model_validator(mode="after")
    def _agree(self) -> Self:
        try:
            self.parsed()
        except InvalidInput as error:
            raise PydanticCustomError("cut", "{detail}", {"detail": error.detail}) from None
        return self


class CutBody(_Cutting):
    """How texts are cut into spans: by tokens, or by sentence."""

    by: Annotated[str, _OneOf(*CHUNKERS)] = "tokens"

    def parsed(self) -> Chunker:
        """Return the chunker."""
        return build(self.by, self._options())


class ChunkingBody(_Cutting):
    """How the documents of a collection are cut into spans, each with a vector of its own."""

    by: Annotated[str, _OneOf(*CHUNKERS, GIVEN)] = Field(
        default="tokens", description="`given`: each document comes with its `spans`."
    )
    mode: Mode = Field(default="late", description=MODE)

    def parsed(self) -> Chunking:
        """Return the chunking."""
        return Chunking.from_json({"by": self.by, "mode": self.mode, **self._options()})


def _kind_of_spans(value: Any) -> str | None:
    """Return which of the three forms a request uses, so that an error speaks of that one alone."""
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
