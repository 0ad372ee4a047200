"""Searches and their hits."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, model_validator
from pydantic_core import PydanticCustomError

from service.api.requests import Body
from service.api.schemas.fields import DocumentId, Texts, Truncate, Vector, examples
from service.collections.refinement import MOST_DIVERSE
from service.collections.reranking import LEAST_DEPTH, MOST_DEPTH
from service.collections.service import MOST_EXAMPLES, MOST_HITS
from service.errors import shortened

HitField = Literal["text", "metadata", "span", "vector"]
Filter = Annotated[
    dict[str, Any] | None,
    Field(description="On metadata: $eq $ne $gt $gte $lt $lte $in $nin $contains $icontains $exists $and $or $not."),
]
Warnings = Annotated[
    list[str] | None,
    Field(description="What of the filter can match nothing: a field, or a type of value, that no document has."),
]
Group = Annotated[
    Literal["document"] | None,
    Field(description="In a chunked collection: one hit a document, that of its best span."),
]
K = Annotated[int, Field(ge=1, le=MOST_HITS, description="Hits wanted; fewer come back where fewer match.")]
Include = Annotated[
    list[HitField],
    Field(fail_fast=True, description="What a hit carries; with `vector`, the answer has that of the query as well."),
]
Threshold = Annotated[
    float | None, Field(allow_inf_nan=False, description="The lowest score of a hit, in the scores of this search.")
]
Diversity = Annotated[
    float | None,
    Field(
        ge=0,
        le=1,
        description="Choose hits that differ from each other, by maximal marginal relevance: 0 keeps the order of "
        f"the scores, 1 looks at differences alone. `k` is then {MOST_DIVERSE} at most.",
    ),
]
Weight = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]


class Weights(Body):
    """How much each ranking counts in a hybrid search."""

    dense: Weight = 1
    keyword: Weight = 1


class RerankBody(Body):
    """By what the best hits are scored anew and put in order."""

    by: Literal["maxsim"] | None = Field(
        default=None,
        description="`maxsim`: for each token of the query the largest cosine with a token of the hit's text, on "
        "average, over the token states of the collection's own encoder (late interaction).",
    )
    model: str | None = Field(
        default=None,
        description="One of the config's `rerankers`, a cross-encoder, which reads query and text together.",
    )
    depth: int | None = Field(
        default=None,
        ge=1,
        le=MOST_DEPTH,
        description=f"How many hits are scored anew, `k` at least; {LEAST_DEPTH} or `k` unless given.",
    )

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if (self.by is None) == (self.model is None):
            raise PydanticCustomError(
                "rerank",
                "give either 'by', which is 'maxsim', or 'model', the name of a reranker; given are {given}",
                {"given": "both" if self.by else "neither"},
            )
        return self


class SearchRequest(Body):
    """A search by one text, by several, or by a vector."""

    model_config = examples({"query": "music", "k": 3, "filter": {"year": {"$gte": 2000}}})

    query: str | None = None
    queries: Texts | None = None
    vector: Vector | None = None
    mode: Literal["dense", "keyword", "hybrid"] = Field(
        default="dense", description="Search by vectors, by words (BM25), or by both (reciprocal rank fusion)."
    )
    weights: Weights | None = Field(default=None, description="Of the two rankings of a hybrid search; 1 each.")
    k: K = 10
    filter: Filter = None
    group: Group = None
    exact: bool = Field(default=False, description="Compare every vector, whatever the index could do.")
    include: Include = Field(default=["text", "metadata", "span"])
    score_threshold: Threshold = None
    diversity: Diversity = None
    rerank: RerankBody | None = Field(
        default=None,
        description="Score the best hits anew, by their texts. `score_threshold` and `diversity` then go by the new "
        "scores.",
    )
    truncate: Truncate = False

    @model_validator(mode="after")
    def _check_query(self) -> Self:
        given = [name for name in ("query", "queries", "vector") if getattr(self, name) is not None]
        if self.mode == "hybrid" and given == ["query", "vector"]:
            given = ["query"]  # the words, beside a vector of the caller's own
        if self.mode != "dense" and given == ["vector"]:
            remedy = "give 'query' beside 'vector'" if self.mode == "hybrid" else "give 'query' or 'queries'"
            raise PydanticCustomError(
                "no_words", "mode '{mode}' searches by words: {remedy}.", {"mode": self.mode, "remedy": remedy}
            )
        if self.weights is not None and (self.mode != "hybrid" or not self.weights.dense + self.weights.keyword):
            raise PydanticCustomError(
                "weights",
                "'weights' are of the rankings of a hybrid search, and one of them is above 0; {remedy}.",
                {"remedy": "set one" if self.mode == "hybrid" else "leave them out, or ask for mode 'hybrid'"},
            )
        if len(given) != 1:
            raise PydanticCustomError(
                "one_query",
                "give one of 'query', 'queries' and 'vector'; this has {given}.",
                {"given": " and ".join(map(repr, given)) or "none"},
            )
        return self


class RecommendRequest(Body):
    """A search by documents of the collection: more like the positive ones, and unlike the negative ones."""

    model_config = examples({"positive": ["1"], "negative": [], "k": 3})

    positive: list[DocumentId] = Field(min_length=1, max_length=MOST_EXAMPLES, fail_fast=True)
    negative: list[DocumentId] = Field(default=[], max_length=MOST_EXAMPLES, fail_fast=True)
    k: K = 10
    filter: Filter = None
    group: Group = None
    include: Include = Field(default=["text", "metadata", "span"])
    score_threshold: Threshold = None
    diversity: Diversity = None

    @model_validator(mode="after")
    def _check_examples(self) -> Self:
        if both := set(self.positive) & set(self.negative):
            raise PydanticCustomError(
                "both",
                "{id} is among 'positive' and 'negative'; leave one of them out.",
                {"id": shortened(min(both))},
            )
        return self


class HitSpan(BaseModel):
    """Where in a document's text a span starts and ends, exclusive, in characters."""

    start: int
    end: int
    text: str


class HitPart(BaseModel):
    """What one ranking gave a hit."""

    rank: int
    score: float


class HitBody(BaseModel):
    """A document found, or in a chunked collection a span of one.

    `score` is by the collection's similarity, in a keyword search BM25, and in a hybrid search the sum of
    weight / (60 + rank) over its `parts`. With `rerank`, it is the new score, and `parts` has the one before.
    """

    id: str
    score: float
    parts: dict[Literal["dense", "keyword", "hybrid"], HitPart] | None = Field(
        default=None,
        description="In a keyword or hybrid search: its rank and score in each ranking that has it. With `rerank`: "
        "also those before it was scored anew, under the name of the mode.",
    )
    text: str | None = None
    metadata: dict[str, Any] | None = None
    span: HitSpan | None = None
    vector: list[float] | None = None


class Hits(BaseModel):
    """Hits, the best first."""

    hits: list[HitBody]
    vector: list[float] | None = Field(default=None, description="That of the query, where it was asked for.")
    warnings: Warnings = None


class SearchResults(BaseModel):
    """Hits for each of several queries."""

    results: list[Hits]
    warnings: Warnings = None
