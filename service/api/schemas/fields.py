"""Fields that several requests have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, overload

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, JsonValue, Tag, WithJsonSchema

from pooling.layers import require_form
from service.api.requests import TOLERATED, Body
from service.collections.protocols import NAME
from service.embedding.embedder import Embedder
from service.embedding.inputs import Inputs
from service.embedding.models import Models
from service.embedding.output_types import OutputType
from service.embedding.prompts import Purpose
from service.embedding.sparse import SparseEmbedder
from service.embedding.viewing import Viewing
from service.encoder import Side
from service.encoder.reading import Cut
from service.errors import InvalidInput, Place
from service.store.document import MAX_ID_CHARACTERS

PoolingSpec = Annotated[
    str | dict[str, Any] | list[Any],
    Field(description="Another pooling than the model's own, such as `cls`, `gem(p=3)` or `mean + max`."),
]

LayersSpec = Annotated[
    str | dict[str, Any],
    BeforeValidator(require_form),
    Field(
        description='Other layers than the model\'s own whose states are pooled: `last`, `{"use": ["first", "last"], '
        '"by": "mean"}`, where 0 is the embeddings and `first` is 1, or `{"last": 4, "by": "mean"}`.'
    ),
]

Truncate = Annotated[bool, Field(description="Cut a text that is too long instead of refusing it.")]


def _told(**keywords: JsonValue) -> Any:
    """Return what the OpenAPI document says of a value that is checked further on, where more is known of it."""
    return Field(json_schema_extra=dict(keywords))


CollectionName = Annotated[str, _told(pattern=f"^{NAME}$")]

DocumentId = Annotated[str, _told(minLength=1, maxLength=MAX_ID_CHARACTERS, pattern="^[^\\u0000]*$")]

# Validation stops at the first bad item: a list of a million would produce a million errors.
Texts = Annotated[list[str], Field(fail_fast=True), _told(minItems=1)]

Ids = Annotated[list[DocumentId], Field(fail_fast=True), _told(minItems=1)]

TokenId = Annotated[int, _told(minimum=0)]

TokenIds = Annotated[list[TokenId], Field(fail_fast=True), _told(minItems=1)]

Vector = Annotated[list[float], Field(fail_fast=True), _told(minItems=1)]


def _kind_of_input(value: Any) -> str:
    return "list" if isinstance(value, list) and not (value and isinstance(value[0], str)) else "str"


def _kind_of_inputs(value: Any) -> str | None:
    """Return which form inputs have, so that an error speaks of that one alone, and others are not tried."""
    if not isinstance(value, list):
        return "str" if isinstance(value, str) else None
    if list in map(type, value):
        return "list of both"
    return "list of ids" if value and type(value[0]) is int else "list of str"


_Input = Annotated[Annotated[str, Tag("str")] | Annotated[TokenIds, Tag("list")], Discriminator(_kind_of_input)]
_INPUT: Final = {
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}]
}

TextsOrIds = Annotated[
    Annotated[str, Tag("str")]
    | Annotated[Texts, Tag("list of str")]
    | Annotated[TokenIds, Tag("list of ids")]
    | Annotated[list[_Input], Field(fail_fast=True), Tag("list of both")],
    Discriminator(
        _kind_of_inputs,
        custom_error_type="inputs",
        custom_error_message="Input should be a string, a list of strings, or token ids",
    ),
    WithJsonSchema({"anyOf": [*_INPUT["anyOf"], {"type": "array", "items": _INPUT, "minItems": 1}]}),
]
"""A text or several, each as it is written or as token ids."""


def _kind_of_texts(value: Any) -> str | None:
    kind = _kind_of_inputs(value)
    return kind if kind in ("str", "list of str") else None


WrittenTexts = Annotated[
    Annotated[str, Tag("str")] | Annotated[Texts, Tag("list of str")],
    Discriminator(
        _kind_of_texts,
        custom_error_type="inputs",
        custom_error_message="Input should be a string or a list of strings (token ids are for /embed and "
        "/embed_all, and /decode gives their text)",
    ),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}),
]
"""A text or several as they are written, where token ids would mean nothing."""

InputType = Annotated[
    str | None,
    Field(
        description="What the texts are for, which chooses the prompt where `prompt_name` does not, and the route of "
        "a model with a Router: `query` or `document`, in any of the spellings that models and clients have, a task, "
        "or a prompt's name."
    ),
]


_Unused = Annotated[JsonValue, TOLERATED, Field(description="Accepted and not used.")]


@overload
def listed(inputs: str | list[str]) -> tuple[list[str], bool]: ...


@overload
def listed(inputs: str | Sequence[Any]) -> tuple[Inputs, bool]: ...


def listed(inputs: str | Sequence[Any]) -> tuple[Inputs, bool]:
    """Return inputs as a list, and whether they were sent as one."""
    single = isinstance(inputs, str) or (bool(inputs) and isinstance(inputs[0], int))
    return ([inputs], False) if single else (inputs, True)


def purpose(
    model: Embedder | SparseEmbedder, prompt_name: str | None, **fields: str | None
) -> tuple[str | None, Purpose | None]:
    """Return the name of the prompt that a request asks for, and the role of its texts, None where one is not given.

    Args:
        model: whose texts they are.
        prompt_name: the prompt that is named; its texts have no role, except for a model with routes.
        fields: what the texts are said to be for, by the name of the field that says so.

    Raises:
        InvalidInput: nothing is known that the texts are said to be for.
    """
    for field, said in fields.items():
        if said is not None and prompt_name is None:
            return model.purpose(said, Place(field))
        if said is not None and isinstance(model, Embedder) and model.routes:
            return prompt_name, model.purpose(said, Place(field))[1]
    return prompt_name, None


class PoolingsRequest(Body):
    """Which model texts are seen by, under one strategy or several."""

    pooling: PoolingSpec | None = Field(
        default=None, description="A strategy, or a list of several; null, there too, is the model's own."
    )
    layers: LayersSpec | None = None
    model: str | None = None
    truncate: bool | None = Field(
        default=None, description="Cut a text that is too long instead of refusing it; as configured unless given."
    )
    prompt_name: str | None = Field(default=None, description="A prompt of the model, put before each text.")
    input_type: InputType = None

    def viewing(self, models: Models) -> Viewing:
        """Return what is asked for.

        Raises:
            InvalidInput: nothing is known that the texts are said to be for.
            UnknownModel: no model has the name.
        """
        poolings = self.pooling if isinstance(self.pooling, list) else [self.pooling]
        asked = purpose(models.get(self.model), self.prompt_name, input_type=self.input_type)
        return Viewing(poolings, self.layers, self.model, self.truncate and "right", asked)


class PlacedToken(BaseModel):
    """A token, and where it stands."""

    token: str
    start: int | None = Field(description="Where in the text its characters begin; null for special tokens.")
    end: int | None = Field(description="Where they end; null for special tokens.")


class TextOptions(Body):
    """How texts are read: by which model, with which prompt, and how long; and fields that mean nothing here."""

    model: str | None = Field(default=None, description="One of the config's models; the default one unless given.")
    truncate: bool | None = Field(
        default=None, description="Cut a text that is too long instead of refusing it; as configured unless given."
    )
    truncation_direction: Literal["left", "right", "Left", "Right"] = "right"
    prompt_name: str | None = Field(default=None, description="A prompt of the model, put before each text.")
    input_type: InputType = None
    task: str | None = Field(default=None, description="Another name of `input_type`.")
    truncate_prompt_tokens: Annotated[int | None, TOLERATED] = Field(
        default=None, description="-1, or the model's longest text or more: as `truncate`."
    )
    add_special_tokens: Annotated[Literal[True], TOLERATED] = Field(default=True, description="Nothing else is done.")
    user: _Unused = None
    options: _Unused = None

    def cut(self, model: Embedder | SparseEmbedder) -> Cut:
        """Return the side at which a model's texts that are too long are cut; False where none may be.

        Raises:
            InvalidInput: they are to be cut shorter than the model takes.
        """
        asked, most = self.truncate_prompt_tokens, model.recipe.max_tokens
        if asked is not None and asked != -1 and asked < most:
            raise InvalidInput(
                f"texts are cut at the {most} tokens that model {model.name!r} takes, not at {asked}; send -1, or "
                "set max_tokens of the model in the config.",
                where=Place("truncate_prompt_tokens"),
            )
        truncate = model.recipe.truncate if self.truncate is None else self.truncate
        if not truncate and asked is None:
            return False
        side: Side = "left" if self.truncation_direction.lower() == "left" else "right"
        return side

    def purpose(self, model: Embedder | SparseEmbedder) -> tuple[str | None, Purpose | None]:
        """Return the name of the prompt that is asked for, and the role of the texts, None where either is not given.

        Raises:
            InvalidInput: nothing is known that the texts are said to be for.
        """
        return purpose(model, self.prompt_name, input_type=self.input_type, task=self.task)


class VectorOptions(TextOptions):
    """How texts are read, and which vectors are made of them."""

    pooling: PoolingSpec | None = None
    layers: LayersSpec | None = None
    normalize: bool | None = Field(default=None, description="As the model declares unless given.")
    dimensions: Annotated[int, _told(minimum=1)] | None = Field(
        default=None, description="Keep the first dimensions only, normalised anew."
    )
    encoding_format: Literal["float", "base64"] = Field(
        default="float", description="`base64`: the bytes of a vector's numbers, little-endian."
    )
    output_dtype: OutputType = Field(
        default="float32",
        description="The numbers' type, as sentence-transformers' `quantize_embeddings` makes them.",
    )


def examples(*bodies: JsonValue) -> ConfigDict:
    """Return the settings of a request body with examples for the OpenAPI document."""
    return ConfigDict(json_schema_extra={"examples": list(bodies)})


SENTENCES: list[JsonValue] = ["A man is playing a harp.", "A man is playing a keyboard."]
