"""`/embed`, `/embed_all` and `/embed_spans`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from service.api.requests import Body
from service.api.schemas.fields import SENTENCES, PoolingSpec, Texts, Truncate, examples
from service.api.schemas.spans import MODE, Spans
from service.embedding.chunking import Mode


class EmbedAllRequest(Body):
    """Texts whose token states are asked for."""

    model_config = examples({"inputs": "A man is playing a harp."})

    inputs: str | Texts
    model: str | None = None
    truncate: Truncate = False
    truncation_direction: Literal["left", "right", "Left", "Right"] = "right"
    prompt_name: str | None = Field(default=None, description="A prompt of the model, put before each text.")

    @property
    def several(self) -> bool:
        """Whether the inputs are a list."""
        return not isinstance(self.inputs, str)

    @property
    def texts(self) -> list[str]:
        """The inputs as a list."""
        return [self.inputs] if isinstance(self.inputs, str) else self.inputs

    @property
    def side(self) -> Literal["left", "right"] | None:
        """The side to cut at, None where nothing may be cut."""
        if not self.truncate:
            return None
        return "left" if self.truncation_direction.lower() == "left" else "right"


class EmbedRequest(EmbedAllRequest):
    """Texts to embed. A superset of text-embeddings-inference's request."""

    model_config = examples({"inputs": SENTENCES})

    pooling: PoolingSpec | None = None
    normalize: bool | None = Field(default=None, description="As the model declares unless given.")
    dimensions: int | None = Field(default=None, description="Keep the first dimensions only, normalised anew.")


class EmbedSpansRequest(EmbedRequest):
    """Texts whose spans are to be embedded."""

    model_config = examples(
        {"inputs": "A man is playing a harp. He sits by the pond.", "spans": [[0, 24], [25, 45]]},
        {"inputs": SENTENCES, "spans": {"tokens": 4, "overlap": 2}, "mode": "early"},
        {"inputs": "A man is playing a harp. He sits by the pond.", "spans": {"by": "sentence"}},
    )

    spans: Spans = Field(
        description="Start and end of each span in characters (Unicode code points), end exclusive; for several "
        "texts a list of those for each text. Or how to cut them."
    )
    mode: Mode = Field(default="late", description=MODE)


class TokenStatesBody(BaseModel):
    """Token states of one text."""

    tokens: list[str]
    offsets: list[tuple[int, int] | None] = Field(description="Characters of the text; null for special tokens.")
    states: list[list[float]]


class SpanVectorsBody(BaseModel):
    """The spans of one text, and a vector for each."""

    spans: list[tuple[int, int]] = Field(description="Start and end in characters of the text, end exclusive.")
    vectors: list[list[float]]
