"""OpenAI's embeddings contract."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from service.api.requests import Body
from service.api.schemas.fields import SENTENCES, PoolingSpec, Texts, TokenIds, Truncate, examples


class OpenAIEmbedRequest(Body):
    """OpenAI's embeddings request, with `pooling`, `truncate` and `prompt_name` as extras."""

    model_config = examples({"model": "default", "input": SENTENCES})

    input: str | Texts | TokenIds | Annotated[list[TokenIds], Field(fail_fast=True)]
    model: str
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    user: str | None = Field(default=None, description="Accepted and not used.")
    pooling: PoolingSpec | None = None
    truncate: Truncate = False
    prompt_name: str | None = None


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


class OpenAIError(BaseModel):
    """What was wrong, as OpenAI says it."""

    message: str
    type: Literal["invalid_request_error", "server_error"]
    param: str | None
    code: str


class OpenAIProblem(BaseModel):
    """OpenAI's error answer."""

    error: OpenAIError
