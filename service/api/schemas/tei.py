"""Requests and answers of text-embeddings-inference that have no other route here."""

from __future__ import annotations

from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, Discriminator, Field, Tag

from service.api.requests import Body
from service.api.schemas.fields import (
    SENTENCES,
    InputType,
    LayersSpec,
    PoolingSpec,
    TextOptions,
    Texts,
    TextsOrIds,
    TokenId,
    TokenIds,
    VectorOptions,
    WrittenTexts,
    examples,
)

R = TypeVar("R", bound=TextOptions)
_PAIRING: Any = {"source_sentence": SENTENCES[0], "sentences": SENTENCES[1:]}


class Pairing(Body):
    """A text, and others that it is compared with."""

    source_sentence: str
    sentences: Texts


class SimilarityRequest(TextOptions):
    """Which texts are compared; the options may stand in `parameters` too."""

    model_config = examples({"inputs": _PAIRING})

    inputs: Pairing
    pooling: PoolingSpec | None = None
    layers: LayersSpec | None = None
    parameters: TextOptions | None = None

    @property
    def flat(self) -> Self:
        """The request with its parameters as fields."""
        return _flat(self, self.parameters)


def _kind_of_task(value: Any) -> str:
    return "dict" if isinstance(value, dict | Pairing) else "list of inputs"


class TaskRequest(VectorOptions):
    """Texts to embed or to compare; the options may stand in `parameters` too."""

    model_config = examples({"inputs": SENTENCES}, {"inputs": _PAIRING})

    inputs: Annotated[
        Annotated[TextsOrIds, Tag("list of inputs")] | Annotated[Pairing, Tag("dict")], Discriminator(_kind_of_task)
    ]
    parameters: VectorOptions | None = None

    @property
    def flat(self) -> Self:
        """The request with its parameters as fields."""
        return _flat(self, self.parameters)


class TokenizeRequest(Body):
    """Texts whose tokens are asked for."""

    model_config = examples({"inputs": "A man is playing a harp."})

    inputs: WrittenTexts
    model: str | None = None
    add_special_tokens: bool = True
    prompt_name: str | None = Field(default=None, description="A prompt of the model, put before each text.")
    input_type: InputType = None


class DecodeRequest(Body):
    """Token ids of the model's own tokenizer."""

    model_config = examples({"ids": [101, 7861, 8270, 4667, 102]})

    ids: TokenIds | Annotated[list[Annotated[list[TokenId], Field(fail_fast=True)]], Field(fail_fast=True)]
    model: str | None = None
    skip_special_tokens: bool = True
    input_type: InputType = None


class TokenBody(BaseModel):
    """A token, and where it stands."""

    id: int
    text: str = Field(description="Its characters; its name where it stands for none.")
    special: bool
    start: int | None = Field(description="Where in the text its characters begin; null where there are none.")
    stop: int | None = Field(description="Where they end, exclusive.")


def _flat(request: R, parameters: TextOptions | None) -> R:
    if parameters is None:
        return request
    return request.model_copy(update={name: getattr(parameters, name) for name in parameters.model_fields_set})
