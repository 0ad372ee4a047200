"""What requests may say and what answers look like; the OpenAPI document is made from these."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, JsonValue, Tag, model_validator
from pydantic_core import PydanticCustomError

from service.collections.chunking import Chunking
from service.collections.service import MOST_HITS
from service.doctor.findings import Finding, Strategy
from service.embedding.embedder import MOST_WINDOWED, Mode
from service.embedding.spans import BySentence, ByTokens, Cut
from service.errors import did_you_mean, shortened

PoolingSpec = Annotated[
    str | dict[str, Any] | list[Any],
    Field(description="Another pooling than the model's own, such as `cls`, `gem(p=3)` or `mean + max`."),
]
Truncate = Annotated[bool, Field(description="Cut a text that is too long instead of refusing it.")]

# The first bad item of a list is enough: a list of a million would be a million errors.
Texts = Annotated[list[str], Field(fail_fast=True)]
TokenIds = Annotated[list[int], Field(fail_fast=True)]

_MODE: Final = "`late`: pooled from one pass over the whole text. `early`: each span embedded by itself."
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
    mode: Mode = Field(default="late", description=_MODE)

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


class EmbedSpansRequest(EmbedRequest):
    """Texts whose spans are to be embedded."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"inputs": "A man is playing a harp. He sits by the pond.", "spans": [[0, 24], [25, 45]]},
                {"inputs": _SENTENCES, "spans": {"tokens": 4, "overlap": 2}, "mode": "early"},
                {"inputs": "A man is playing a harp. He sits by the pond.", "spans": {"by": "sentence"}},
            ]
        }
    )

    spans: Spans = Field(
        description="Start and end of each span in characters (Unicode code points), end exclusive; for several "
        "texts a list of those for each text. Or how to cut them."
    )
    mode: Mode = Field(default="late", description=_MODE)


class ExplainRequest(Request):
    """A text to explain, or two of which the similarity is explained."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"text": _SENTENCES[0], "pooling": ["mean", "max"]},
                {"text": _SENTENCES[0], "other": _SENTENCES[1]},
            ]
        }
    )

    text: str
    other: str | None = Field(default=None, description="Explain what makes `text` similar to this one.")
    pooling: PoolingSpec | None = Field(
        default=None, description="A strategy, or a list of several; null, there too, is the model's own."
    )
    model: str | None = None
    truncate: Truncate = False
    prompt_name: str | None = Field(default=None, description="A prompt of the model, put before each text.")
    matrix: bool = Field(default=False, description="With `other`: give what each pair of tokens contributes.")

    @property
    def poolings(self) -> list[str | dict[str, Any] | list[Any] | None]:
        """Each strategy asked for; None is the model's own."""
        return self.pooling if isinstance(self.pooling, list) else [self.pooling]


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
    chunking: ChunkingBody | None = Field(default=None, description="One vector a document unless given.")


class ReindexRequest(Request):
    """What a collection is to be embedded with, from the text it has stored."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"model": "default"}]})

    model: str | None = Field(default=None, description="The collection's own unless given.")
    pooling: PoolingSpec | None = Field(
        default=None, description="What the collection was created with unless given; with `model`, that model's own."
    )
    chunking: ChunkingBody | None = Field(
        default=None, description="The collection's own unless given; null: one vector a document."
    )
    truncate: Truncate = False
    force: bool = Field(default=False, description="Embed it again also where nothing differs.")


class DocumentBody(Request):
    """One document."""

    id: str
    text: str
    metadata: dict[str, Any] = Field(default_factory=dict)
    spans: SpansOfText | None = Field(
        default=None,
        description="What has a vector in a chunked collection; sent where it is so by given spans.",
    )


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


HitField = Literal["text", "metadata", "span"]


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
    group: Literal["document"] | None = Field(
        default=None, description="In a chunked collection: one hit a document, that of its best span."
    )
    include: Annotated[list[HitField], Field(fail_fast=True)] = ["text", "metadata", "span"]
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


class SpanVectorsBody(BaseModel):
    """The spans of one text, and a vector for each."""

    spans: list[tuple[int, int]] = Field(description="Start and end in characters of the text, end exclusive.")
    vectors: list[list[float]]


class ExplainedToken(BaseModel):
    """A token, where it stands, and what it gave."""

    token: str
    start: int | None = Field(description="Where in the text its characters begin; null for special tokens.")
    end: int | None = Field(description="Where they end; null for special tokens.")
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
    head: str | None = Field(
        description="What comes between the pooled vector, which is explained, and the served one; null: nothing."
    )
    explanations: list[ExplanationBody]


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
    count: int = Field(description="Documents.")
    chunking: dict[str, JsonValue] | None = Field(default=None, description="How documents are cut, if they are.")
    chunks: int | None = Field(default=None, description="Their spans, each with a vector.")
    memory_bytes: int
    created: str


class CollectionList(BaseModel):
    """All collections."""

    collections: list[CollectionBody]


class DefinitionBody(BaseModel):
    """What a collection's vectors are made with."""

    model: str
    pooling: str
    fingerprint: str
    chunking: dict[str, JsonValue] | None = Field(description="null: one vector a document.")


class ReindexBody(BaseModel):
    """How far a reindex is; `unneeded` where the collection is already what was asked for."""

    state: Literal["running", "complete", "failed", "interrupted", "unneeded"]
    done: int = Field(description="Documents that have their new vector.")
    total: int
    texts_per_second: float | None
    source: DefinitionBody = Field(alias="from")
    target: DefinitionBody = Field(alias="to")
    error: str | None = Field(description="Why it failed.")


class UpsertedBody(BaseModel):
    """How many documents are stored now, and how many of them were so before."""

    upserted: int
    unchanged: int


class HitSpan(BaseModel):
    """Where in a document's text a span starts and ends, exclusive, in characters."""

    start: int
    end: int
    text: str


class HitBody(BaseModel):
    """A document found, or in a chunked collection a span of one; `score` is the cosine."""

    id: str
    score: float
    text: str | None = None
    metadata: dict[str, Any] | None = None
    span: HitSpan | None = None


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
