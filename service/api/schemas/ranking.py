"""Requests and answers of `/rerank` and `/predict`, as text-embeddings-inference has them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Discriminator, Field, Tag, WithJsonSchema

from service.api.requests import Body
from service.api.schemas.fields import SENTENCES, Texts, examples
from service.encoder.reading import Cut
from service.ranking import Reranker


class ScoreOptions(Body):
    """How texts are read, and what becomes of their scores."""

    model: str | None = Field(default=None, description="One of the config's rerankers; the first one unless given.")
    raw_scores: bool = Field(
        default=False,
        description="Logits as they are, without the model's activation, or where it has none, without what brings "
        "them to within 0 and 1.",
    )
    truncate: bool | None = Field(
        default=None, description="Cut what is too long instead of refusing it; as configured unless given."
    )
    truncation_direction: Literal["left", "right", "Left", "Right"] = "right"

    def cut(self, reranker: Reranker) -> Cut:
        """Return the side at which what is too long for a reranker is cut; False where nothing may be."""
        if not (reranker.recipe.truncate if self.truncate is None else self.truncate):
            return False
        return "left" if self.truncation_direction.lower() == "left" else "right"


class RerankRequest(ScoreOptions):
    """A query, and the texts to rank by it."""

    model_config = examples({"query": "music", "texts": SENTENCES})

    query: str
    texts: Texts
    return_text: bool = Field(default=False, description="Answer with the texts, too.")


def _kind_of_inputs(value: Any) -> str | None:
    """Return which form inputs have, so that an error speaks of that one alone."""
    if isinstance(value, str):
        return "str"
    if not isinstance(value, list):
        return None
    return "list of lists" if value and isinstance(value[0], list) else "list of str"


_TextOrPair = Annotated[list[str], Field(min_length=1, max_length=2, fail_fast=True)]
_STRINGS: Any = {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 2}

Inputs = Annotated[
    Annotated[str, Tag("str")]
    | Annotated[_TextOrPair, Tag("list of str")]
    | Annotated[list[_TextOrPair], Field(fail_fast=True), Tag("list of lists")],
    Discriminator(
        _kind_of_inputs,
        custom_error_type="inputs",
        custom_error_message="Input should be a text, a pair [text, text], or a list of both, [[text], [text, text]]",
    ),
    WithJsonSchema({"anyOf": [{"type": "string"}, _STRINGS, {"type": "array", "items": _STRINGS, "minItems": 1}]}),
]


class PredictRequest(ScoreOptions):
    """Texts and pairs of texts to classify."""

    model_config = examples({"inputs": SENTENCES}, {"inputs": [SENTENCES, SENTENCES[:1]]})

    inputs: Inputs

    @property
    def items(self) -> tuple[list[str | tuple[str, str]], bool]:
        """The texts and pairs, and whether they were sent as a list of such."""
        several = isinstance(self.inputs, list) and bool(self.inputs) and isinstance(self.inputs[0], list)
        given: Any = self.inputs if several else [[self.inputs] if isinstance(self.inputs, str) else self.inputs]
        return [each[0] if len(each) == 1 else (each[0], each[1]) for each in given], several


class RankBody(BaseModel):
    """A text's place among those that were sent, and its score."""

    index: int
    score: float
    text: str | None = Field(default=None, description="Where `return_text` asks for it.")


class PredictionBody(BaseModel):
    """A label, and its score."""

    label: str
    score: float
