"""What requests may say and what answers look like; the OpenAPI document is made from these."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator
from pydantic_core import PydanticCustomError

from service.doctor.findings import Finding, Strategy
from service.errors import did_you_mean, shortened
from service.search import MOST_HITS

PoolingSpec = Annotated[
    str | dict[str, Any] | list[Any],
    Field(description="Another pooling than the model's own, such as `cls`, `gem(p=3)` or `mean + max`."),
]
Truncate = Annotated[bool, Field(description="Cut a text that is too long instead of refusing it.")]

# The first bad item of a list is enough: a list of a million would be a million errors.
Texts = Annotated[list[str], Field(fail_fast=True)]
TokenIds = Annotated[list[int], Field(fail_fast=True)]

_SENTENCES: list[JsonValue] = ["A man is playing a harp.", "A man is playing a keyboard."]


class Request(BaseModel):
    """A request body; unknown fields and other types are errors, so that a mistake never goes unnoticed."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _know_all_fields(cls, data: Any) -> Any:
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


class EmbedAllRequest(Request):
    """Texts whose token states are asked for."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"inputs": "A man is playing a harp."}]})

    inputs: str | Texts
    model: str | None = None
    truncate: Truncate = False
    truncation_direction: Literal["left", "right", "Left", "Right"] = "right"
    prompt_name: str | None = Field(default=None, description="A prompt of the model, put before each text.")

    @property
    def side(self) -> Literal["left", "right"] | None:
        """The side to cut at, None where nothing may be cut."""
        if not self.truncate:
            return None
        return "left" if self.truncation_direction.lower() == "left" else "right"


class EmbedRequest(EmbedAllRequest):
    """Texts to embed. A superset of text-embeddings-inference's request."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"inputs": _SENTENCES}]})

    pooling: PoolingSpec | None = None
    normalize: bool | None = Field(default=None, description="As the model declares unless given.")
    dimensions: int | None = Field(default=None, description="Keep the first dimensions only, normalised anew.")


class OpenAIEmbedRequest(Request):
    """OpenAI's embeddings request, with `pooling`, `truncate` and `prompt_name` as extras."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"model": "default", "input": _SENTENCES}]})

    input: str | Texts | TokenIds | Annotated[list[TokenIds], Field(fail_fast=True)]
    model: str
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    user: str | None = Field(default=None, description="Accepted and not used.")
    pooling: PoolingSpec | None = None
    truncate: Truncate = False
    prompt_name: str | None = None


class CreateCollection(Request):
    """Which embedder a collection's vectors come from, and how they are searched."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"model": "default"}]})

    model: str | None = None
    pooling: PoolingSpec | None = None
    index: str = Field(default="flat", description="`flat`: exact search by inner product of normalised vectors.")


class DocumentBody(Request):
    """One document."""

    id: str
    text: str
    metadata: dict[str, Any] = Field(default_factory=dict)


class UpsertRequest(Request):
    """Documents to store: all of them or none."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "documents": [
                        {"id": "1", "text": "A man is playing a harp.", "metadata": {"year": 2012, "lang": "en"}},
                        {"id": "2", "text": "A cat sleeps in the sun.", "metadata": {"year": 2020, "lang": "en"}},
                    ]
                }
            ]
        }
    )

    documents: Annotated[list[DocumentBody], Field(fail_fast=True)]
    truncate: Truncate = False


class SearchRequest(Request):
    """A search by one text, by several, or by a vector."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"query": "music", "k": 3, "filter": {"year": {"$gte": 2000}}}]}
    )

    query: str | None = None
    queries: Texts | None = None
    vector: Annotated[list[float], Field(fail_fast=True)] | None = None
    k: int = Field(default=10, ge=1, le=MOST_HITS, description="Hits wanted; fewer come back where fewer match.")
    filter: dict[str, Any] | None = Field(
        None, description="On metadata, with $eq $ne $gt $gte $lt $lte $in $nin $exists $and $or $not."
    )
    include: Annotated[list[Literal["text", "metadata"]], Field(fail_fast=True)] = ["text", "metadata"]
    truncate: Truncate = False

    @model_validator(mode="after")
    def _one_question(self) -> Self:
        given = [name for name in ("query", "queries", "vector") if getattr(self, name) is not None]
        if len(given) != 1:
            raise PydanticCustomError(
                "one_question",
                "give one of 'query', 'queries' and 'vector'; this has {given}.",
                {"given": " and ".join(map(repr, given)) or "none"},
            )
        return self


class TokenStatesBody(BaseModel):
    """Token states of one text."""

    tokens: list[str]
    offsets: list[tuple[int, int] | None] = Field(description="Characters of the text; null for special tokens.")
    states: list[list[float]]


class OpenAIEmbedding(BaseModel):
    """One vector."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """Tokens read, special tokens included."""

    prompt_tokens: int
    total_tokens: int


class OpenAIEmbeddings(BaseModel):
    """OpenAI's embeddings answer."""

    object: Literal["list"] = "list"
    data: list[OpenAIEmbedding]
    model: str
    usage: Usage


class OpenAIModel(BaseModel):
    """One served model."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class OpenAIModels(BaseModel):
    """The served models."""

    object: Literal["list"] = "list"
    data: list[OpenAIModel]


class CollectionBody(BaseModel):
    """A collection and what it holds."""

    name: str
    model: str
    pooling: str
    fingerprint: str
    dimension: int
    index: str
    count: int
    memory_bytes: int
    created: str


class CollectionList(BaseModel):
    """All collections."""

    collections: list[CollectionBody]


class UpsertedBody(BaseModel):
    """How many documents are stored now, and how many of them were so before."""

    upserted: int
    unchanged: int


class HitBody(BaseModel):
    """A document found; `score` is the cosine."""

    id: str
    score: float
    text: str | None = None
    metadata: dict[str, Any] | None = None


class Hits(BaseModel):
    """Hits, the best first."""

    hits: list[HitBody]


class SearchResults(BaseModel):
    """Hits for each of several queries."""

    results: list[Hits]


class OpenAIError(BaseModel):
    """What was wrong, as OpenAI says it."""

    message: str
    type: Literal["invalid_request_error", "server_error"]
    param: str | None
    code: str


class OpenAIProblem(BaseModel):
    """OpenAI's error answer."""

    error: OpenAIError


class ReportBody(BaseModel):
    """A served model, examined."""

    model: str
    verdict: str = Field(description="All of it in one sentence.")
    faults: list[str] = Field(description="Names of the findings that are faults.")
    warnings: list[str] = Field(description="Names of the findings that may be.")
    declared: dict[str, Any] = Field(description="What the checkpoint says, by name.")
    served: dict[str, Any] = Field(description="What vectors are made with, by the same names and more.")
    findings: list[Finding] = Field(description="The checks, in order.")
    strategies: list[Strategy] = Field(
        description="How near the vectors of each pooling are to those of the right one where that is known, "
        "else of the declared one, and how well each tells paraphrases from look-alikes."
    )


class Examined(BaseModel):
    """A report on each model, by the model's name."""

    models: dict[str, ReportBody]


class Problem(BaseModel):
    """A problem document (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    where: str | None = None
