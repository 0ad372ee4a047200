"""Collections, their documents, and their reindexes."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, Field, JsonValue

from service.api.requests import Body
from service.api.schemas.fields import PoolingSpec, Truncate, examples
from service.api.schemas.spans import ChunkingBody, SpansOfText
from service.index import DEFAULT, KINDS
from service.similarity import SIMILARITIES
from service.store.tokenizers import TOKENIZERS

_INDEXES: Final = " ".join(f"`{kind}`: {index.summary}." for kind, index in KINDS.items())
_SIMILARITIES: Final = " ".join(f"`{name}`: {each.summary}." for name, each in SIMILARITIES.items())
_TOKENIZERS: Final = " ".join(f"`{name}`: {each.summary}." for name, each in TOKENIZERS.items())
TokenizerName = Literal["unicode61", "porter", "trigram"]
SimilarityName = Literal["cosine", "dot", "euclidean"]


class KeywordBody(Body):
    """How the texts of a collection are searched by words."""

    tokenizer: TokenizerName = Field(default="unicode61", description=_TOKENIZERS)


class CreateCollection(Body):
    """Which embedder a collection's vectors come from, and how they are searched."""

    model_config = examples({"model": "default"})

    model: str | None = None
    pooling: PoolingSpec | None = None
    index: str | None = Field(
        default=None,
        description=f"That of the collection where it exists, else `{DEFAULT}`, unless given. {_INDEXES}",
    )
    recall: float | None = Field(
        default=None,
        description="Of an index that approximates: the share of the true nearest that a search is to find; 0.98 "
        "unless given.",
    )
    chunking: ChunkingBody | None = Field(default=None, description="One vector a document unless given.")
    similarity: SimilarityName | None = Field(
        default=None, description=f"As the model declares, else cosine, unless given. {_SIMILARITIES}"
    )
    keyword: KeywordBody | None = Field(
        default=KeywordBody(), description="The index for keyword and hybrid searches; null: none."
    )


class ReindexRequest(Body):
    """What a collection is to be embedded with, from the text it has stored."""

    model_config = examples({"model": "default"})

    model: str | None = Field(default=None, description="The collection's own unless given.")
    pooling: PoolingSpec | None = Field(
        default=None, description="What the collection was created with unless given; with `model`, that model's own."
    )
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

    id: str
    text: str
    metadata: dict[str, Any] = Field(default_factory=dict)
    spans: SpansOfText | None = Field(
        default=None,
        description="What has a vector in a chunked collection; sent where it is so by given spans.",
    )


class UpsertRequest(Body):
    """Documents to store: all of them or none."""

    model_config = examples(
        {
            "documents": [
                {"id": "1", "text": "A man is playing a harp.", "metadata": {"year": 2012, "lang": "en"}},
                {"id": "2", "text": "A cat sleeps in the sun.", "metadata": {"year": 2020, "lang": "en"}},
            ]
        }
    )

    documents: Annotated[list[DocumentBody], Field(fail_fast=True)]
    truncate: Truncate = False


class IndexBody(BaseModel):
    """How a collection is searched now."""

    uses: str = Field(description="`exact`, or `hnsw`.")
    tail: int | None = Field(default=None, description="Vectors that are not in the graph yet, and compared with.")
    deleted: int | None = Field(default=None, description="Vectors in the graph that are no longer found.")
    target: float | None = Field(default=None, description="The recall that is asked for.")
    recall: float | None = Field(default=None, description="As measured on a sample of the collection's vectors.")
    problem: str | None = Field(default=None, description="Why the target is not met, or no graph can be built.")


class CollectionBody(BaseModel):
    """A collection and what it holds."""

    name: str
    aliases: list[str] = Field(description="Its further names.")
    model: str
    pooling: str
    fingerprint: str
    dimension: int
    index: str
    index_state: IndexBody
    similarity: str = Field(description="How vectors are compared.")
    keyword: KeywordBody | None = Field(default=None, description="How its texts are searched by words, if they are.")
    precisions: list[str] = Field(description="In which precisions its vectors were made.")
    count: int = Field(description="Documents.")
    chunking: dict[str, JsonValue] | None = Field(default=None, description="How documents are cut, if they are.")
    chunks: int | None = Field(default=None, description="Their spans, each with a vector.")
    memory_bytes: int = Field(description="That its index holds in memory.")
    stored_bytes: int = Field(description="Of its texts, metadata and vectors in the store.")
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


class UpsertedBody(BaseModel):
    """How many documents are stored now, and how many of them were so before."""

    upserted: int
    unchanged: int
