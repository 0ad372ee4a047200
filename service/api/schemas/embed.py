"""`/embed`, `/embed_all` and `/embed_spans`."""

from __future__ import annotations

from pydantic import BaseModel, Field

from service.api.schemas.fields import (
    SENTENCES,
    LayersSpec,
    TextOptions,
    TextsOrIds,
    VectorOptions,
    WrittenTexts,
    examples,
)
from service.api.schemas.spans import MODE, Spans
from service.embedding.chunking import Mode


class EmbedRequest(VectorOptions):
    """Texts to embed. A superset of text-embeddings-inference's request."""

    model_config = examples({"inputs": SENTENCES})

    inputs: TextsOrIds


class EmbedAllRequest(TextOptions):
    """Texts whose token states are asked for."""

    model_config = examples({"inputs": "A man is playing a harp."})

    inputs: TextsOrIds
    layers: LayersSpec | None = None


class EmbedSpansRequest(VectorOptions):
    """Texts whose spans are to be embedded."""

    model_config = examples(
        {"inputs": "A man is playing a harp. He sits by the pond.", "spans": [[0, 24], [25, 45]]},
        {"inputs": SENTENCES, "spans": {"tokens": 4, "overlap": 2}, "mode": "early"},
        {"inputs": "A man is playing a harp. He sits by the pond.", "spans": {"by": "sentence"}},
    )

    inputs: WrittenTexts
    spans: Spans = Field(
        description="Start and end of each span in characters (Unicode code points), end exclusive; for several "
        "texts a list of those for each text. Or how to cut them."
    )
    mode: Mode = Field(default="late", description=MODE)


class TokenStatesBody(BaseModel):
    """Token states of one text."""

    tokens: list[str]
    offsets: list[tuple[int, int] | None] = Field(
        description="Characters of the text; null for special tokens, and for all where token ids were sent."
    )
    states: list[list[float]]
    truncated: bool | None = Field(default=None, description="Whether the text was cut, if it was.")


class SpanVectorsBody(BaseModel):
    """The spans of one text, and a vector for each."""

    spans: list[tuple[int, int]] = Field(description="Start and end in characters of the text, end exclusive.")
    vectors: list[list[float] | str]
    truncated: list[int] | None = Field(
        default=None, description="Which spans were cut, counted from 0, if any were."
    )
