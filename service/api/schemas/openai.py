"""OpenAI's embeddings contract."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from service.api.schemas.fields import SENTENCES, TextsOrIds, VectorOptions, examples


class OpenAIEmbedRequest(VectorOptions):
    """OpenAI's embeddings request, with `pooling`, `truncate`, `prompt_name` and others as extras."""

    model_config = examples({"model": "default", "input": SENTENCES})

    input: TextsOrIds


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
    truncated: list[int] | None = Field(
        default=None, description="Which inputs were cut, counted from 0, if any were."
    )


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
