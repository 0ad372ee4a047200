"""Collections, their documents, and their reindexes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_serializer,
)

from service.api.requests import Body
from service.api.schemas.fields import DocumentId, LayersSpec, PoolingSpec, Truncate, Vector, examples
from service.api.schemas.spans import ChunkingBody, SpansOfText
from service.index import DEFAULT, KINDS
from service.similarity import SIMILARITIES
from service.store.tokenizers import TOKENIZERS

_INDEXES: Final = " ".join(f"`{kind}`: {index.summary}." for kind, index in KINDS.items())
_SIMILARITIES: Final = " ".join(f"`{name}`: {each.summary}." for name, each in SIMILARITIES.items())
_TOKENIZERS: Final = " ".join(f"`{name}`: {each.summary}." for name, each in TOKENIZERS.items())
TokenizerName = Literal["unicode61", "porter", "trigram"]
LONGEST_IDLE: Final = 86_400
"""Seconds that an idle timeout may be: a day."""
_MOST_MISFITS: Final = 20_000
"""Items of a request that are no documents, after which it is refused as a whole."""
SimilarityName = Literal["cosine", "dot", "euclidean"]


class KeywordBody(Body):
    """How the texts of a collection are searched by words."""

    tokenizer: TokenizerName = Field(default="unicode61", description=_TOKENIZERS)


class CreateCollection(Body):
    """Which embedder a collection's vectors come from, and how they are searched."""

    model_config = examples({"model": "default"})

    model: str | None = None
    pooling: PoolingSpec | None = None
    layers: LayersSpec | None = None
    index: str | None = Field(
        default=None,
        description=f"That of the collection where it exists, else `{DEFAULT}`, unless given. {_INDEXES}",
    )
    recall: float | None = Field(
        default=None,
        description="Of an index that approximates: the share of the true nearest that a search is to find; 0.98 "
        "unless given, and 0.95 for `ivf`.",
    )
    dimension: int | None = Field(
        default=None,
        ge=1,
        le=65_536,
        description="Documents come with vectors of so many numbers; `model`, if given, embeds queries alone.",
    )
    chunking: ChunkingBody | None = Field(default=None, description="One vector a document unless given.")
    similarity: SimilarityName | None = Field(
        default=None, description=f"As the model declares, else cosine, unless given. {_SIMILARITIES}"
    )
    keyword: KeywordBody | None = Field(
        default=KeywordBody(), description="The index for keyword and hybrid searches; null: none."
    )
    idle_timeout: int | None = Field(
        default=None,
        ge=1,
        le=LONGEST_IDLE,
        description="Seconds: the collection is dropped with all its documents once no request has named it for so "
        "long. Never unless given.",
    )


class ReindexRequest(Body):
    """What a collection is to be embedded with, from the text it has stored."""

    model_config = examples({"model": "default"})

    model: str | None = Field(default=None, description="The collection's own unless given.")
    pooling: PoolingSpec | None = Field(
        default=None, description="What the collection was created with unless given; with `model`, that model's own."
    )
    layers: LayersSpec | None = Field(default=None, description="As for `pooling`.")
    chunking: ChunkingBody | None = Field(
        default=None, description="The collection's own unless given; null: one vector a document."
    )
    similarity: SimilarityName | None = Field(
        default=None, description="The collection's own unless given; with `model`, what that model declares."
    )
    truncate: Truncate = False
    force: bool = Field(default=False, description="Embed it again also where nothing differs.")


class DocumentBody(Body):
    """One document."""

    id: DocumentId
    text: str = Field(default="", description="Required of a document without a vector.")
    metadata: dict[str, Any] = Field(default_factory=dict)
    spans: SpansOfText | None = Field(
        default=None,
        description="What has a vector in a chunked collection; sent where it is so by given spans.",
    )
    vector: Vector | None = Field(default=None, description="Its vector, made elsewhere, which is stored as it is.")
    vectors: list[Vector] | None = Field(default=None, description="The same in a chunked collection: one a span.")
    fingerprint: str | None = Field(
        default=None,
        description="Under which its vector was made: that of the collection. Needed unless its vectors are foreign.",
    )


@dataclass(frozen=True, slots=True)
class Misfit:
    """An item of a list that is no document, and the first things that are wrong with it, as Pydantic has them."""

    id: str | None
    problems: Sequence[Mapping[str, Any]]


def _one_by_one(value: Any, validate: ValidatorFunctionWrapHandler) -> list[DocumentBody | Misfit]:
    """Validate a list of documents, and where that fails each by itself, so that every bad one is found."""
    try:
        return validate(value)  # type: ignore[no-any-return]
    except ValidationError:
        if not isinstance(value, list):
            raise
        found: list[DocumentBody | Misfit] = []
        misfits = 0
        for item in value:
            try:
                found.append(DocumentBody.model_validate(item))
            except ValidationError as error:
                misfits += 1
                if misfits > _MOST_MISFITS:
                    break
                given = item.get("id") if isinstance(item, dict) else None
                found.append(Misfit(given if isinstance(given, str) else None, error.errors(include_url=False)[:5]))
        else:
            return found
        raise


class UpsertRequest(Body):
    """Documents to store: all of them or none, or with `on_error: skip` the good ones."""

    model_config = examples(
        {
            "documents": [
                {"id": "1", "text": "A man is playing a harp.", "metadata": {"year": 2012, "lang": "en"}},
                {"id": "2", "text": "A cat sleeps in the sun.", "metadata": {"year": 2020, "lang": "en"}},
            ]
        }
    )

    documents: Annotated[list[DocumentBody], Field(fail_fast=True), WrapValidator(_one_by_one)]
    truncate: Truncate = False
    on_error: Literal["fail", "skip"] = Field(
        default="fail", description="`skip` stores the good documents and returns the others as `rejected`."
    )


class IndexBody(BaseModel):
    """How a collection is searched now."""

    uses: str = Field(description="`exact`, `hnsw` or `ivf`.")
    tail: int | None = Field(default=None, description="Vectors that are not built in yet, and compared with.")
    deleted: int | None = Field(default=None, description="Vectors built in that are no longer found.")
    target: float | None = Field(default=None, description="The recall that is asked for.")
    recall: float | None = Field(default=None, description="As measured on a sample of the collection's vectors.")
    problem: str | None = Field(default=None, description="Why the target is not met, or nothing can be built.")
    building: float | None = Field(
        default=None, description="How much of a graph that is being built, or waits for that, is done: from 0 to 1."
    )
    saved: str | None = Field(
        default=None, description="When the graph was kept that a start reads; it has later vectors from the store."
    )


class CollectionBody(BaseModel):
    """A collection and what it holds."""

    name: str
    aliases: list[str] = Field(description="Its further names.")
    model: str | None = Field(description="null: its vectors are foreign, and no model is named for queries.")
    pooling: str | None
    layers: dict[str, JsonValue] | None = Field(
        default=None, description="Whose states are pooled, where it is not the last layer's alone."
    )
    fingerprint: str = Field(description="`foreign` without a model.")
    foreign: bool | None = Field(default=None, description="Whether documents come with their vectors, if they do.")
    dimension: int
    index: str
    index_state: IndexBody
    similarity: str = Field(description="How vectors are compared.")
    keyword: KeywordBody | None = Field(default=None, description="How its texts are searched by words, if they are.")
    idle_timeout: int | None = Field(
        default=None, description="Seconds without a request that names it after which it is dropped, if it ever is."
    )
    precisions: list[str] = Field(description="In which precisions its vectors were made.")
    count: int = Field(description="Documents.")
    chunking: dict[str, JsonValue] | None = Field(default=None, description="How documents are cut, if they are.")
    chunks: int | None = Field(default=None, description="Their spans, each with a vector.")
    memory_bytes: int = Field(description="That its index holds in memory.")
    stored_bytes: int = Field(description="Of its texts, metadata and vectors in the store.")
    created: str

    @model_serializer(mode="wrap")
    def _keep_null(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Keep `null` for what a collection of foreign vectors lacks, where other absent fields are left out."""
        fields: dict[str, Any] = serialize(self)
        return {"name": self.name, "model": self.model, "pooling": self.pooling} | fields


class CollectionList(BaseModel):
    """All collections."""

    collections: list[CollectionBody]


class DefinitionBody(BaseModel):
    """What a collection's vectors are made with."""

    model: str | None
    pooling: str | None
    layers: dict[str, JsonValue] | None = Field(description="null: the last layer's alone are pooled.")
    fingerprint: str
    chunking: dict[str, JsonValue] | None = Field(description="null: one vector a document.")
    similarity: str


class ReindexBody(BaseModel):
    """How far a reindex is; `unneeded` where the collection is already what was asked for."""

    state: Literal["running", "complete", "failed", "interrupted", "unneeded"]
    done: int = Field(description="Documents that have their new vector.")
    total: int
    texts_per_second: float | None
    source: DefinitionBody = Field(alias="from")
    target: DefinitionBody = Field(alias="to")
    error: str | None = Field(description="Why it failed.")


class RejectedBody(BaseModel):
    """A document that was left out."""

    index: int = Field(description="Which of the request's documents it was.")
    id: str | None = Field(description="null where it had none.")
    code: str = Field(description="The kind of error, as in a problem document.")
    detail: str
    empty: bool = Field(description="Whether it has no vector, and its text has nothing to embed.")


class UpsertedBody(BaseModel):
    """How many documents are stored now, and how many of them were so before."""

    upserted: int
    unchanged: int
    rejected: list[RejectedBody] | None = Field(default=None, description="With `on_error: skip`: those left out.")
