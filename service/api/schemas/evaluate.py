"""`/evaluate`."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, Field, JsonValue, model_validator
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from service.api.requests import Body
from service.api.schemas.fields import LayersSpec, examples
from service.api.schemas.problem import Problem

_COUNTS: Final[JsonDict] = {"minItems": 20, "maxItems": 2000}
_Rows = Annotated[list[dict[str, JsonValue]], Field(fail_fast=True, json_schema_extra=_COUNTS)]


class EvaluateRequest(Body):
    """Which poolings to compare, and the data to compare them on: packaged ones, pairs, or labelled texts."""

    model_config = examples({"data": "examples", "pooling": ["mean", "max"]})

    data: Literal["examples"] | None = Field(default=None, description="A hundred scored pairs of Millpond's own.")
    pairs: _Rows | None = Field(
        default=None,
        description="Pairs with a score (`sentence1`, `sentence2`, `score`) or that belong together (`anchor`, "
        "`positive`), from 20 to 2,000.",
    )
    classification: _Rows | None = Field(
        default=None, description="Labelled texts (`text`, `label`), from 20 to 2,000 and at least 5 of each label."
    )
    pooling: str | list[str] | None = Field(
        default=None, description="A strategy or several; by default a set of eleven, as far as they fit the model."
    )
    layers: LayersSpec | None = None
    model: str | None = Field(default=None, description="One of the config's models; the default one unless given.")

    @model_validator(mode="after")
    def _one_data_set(self) -> EvaluateRequest:
        if len([each for each in (self.data, self.pairs, self.classification) if each is not None]) != 1:
            raise PydanticCustomError(
                "one_data_set",
                "give the data as one of these: 'data' (\"examples\", which come with the service), 'pairs', or "
                "'classification' (labelled texts).",
            )
        return self

    @property
    def poolings(self) -> list[str] | None:
        """Each strategy asked for; None for those that are compared by default."""
        return [self.pooling] if isinstance(self.pooling, str) else self.pooling

    @property
    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """The data set by its layout; none where it is the packaged one."""
        given = {"pairs": self.pairs, "classification": self.classification}
        return {layout: rows for layout, rows in given.items() if rows is not None}


class StepBody(BaseModel):
    """How far it is."""

    stage: str = Field(description="`embedding`, `scoring`, `information`, `robustness` or `speed`, in this order.")
    done: int
    total: int


class ScoreBody(BaseModel):
    """A score from 0 to 1, and its 95 % interval."""

    value: float
    low: float
    high: float


class PerturbedBody(BaseModel):
    """What is left when texts are spoiled."""

    level: float = Field(description="The share of tokens, or the number of sentences.")
    score: float
    lost: float
    cosine: float


class RetainedBody(BaseModel):
    """What vectors hold of their texts."""

    words_recovered: float
    chance: float
    sameness: float


class RowBody(BaseModel):
    """One pooling."""

    strategy: str
    scores: dict[str, ScoreBody] = Field(description="By metric.")
    difference: ScoreBody | None = Field(description="To the reference; null for the reference itself.")
    verdict: Literal["better", "worse", "within noise"] | None
    robustness: dict[str, list[PerturbedBody]] = Field(description="By kind: `noise`, `filler`, `cut`.")
    padding: float
    information: RetainedBody | None = Field(description="Null for fewer than 100 texts.")
    pooling_share: float = Field(description="Its time as a share of the encoder's.")


class DataSetBody(BaseModel):
    """The scores on the data."""

    name: str
    kind: Literal["similarity", "retrieval", "classification"]
    items: str
    size: int
    texts: int
    metrics: list[str] = Field(description="The first one decides.")
    reference: str = Field(description="The pooling that the others are compared with.")
    rows: list[RowBody]
    speed: dict[str, float]
    seconds: dict[str, float]
    sample: int


class StrategyBody(BaseModel):
    """A pooling that was compared."""

    name: str
    spec: str
    dim: int
    weights: str | None
    layers: JsonValue


class EvaluatedBody(BaseModel):
    """A whole report, as `millpond evaluate --json` writes it."""

    format: int
    model: str
    declared: str | None
    runtime: str
    strategies: list[StrategyBody]
    data: list[DataSetBody]
    choice: str
    advice: str
    yaml: str
    fit: bool
    notes: list[str]


class EvaluateLine(BaseModel):
    """A line of the answer, which has one of these; the last one has the report, or why there is none."""

    progress: StepBody | None = None
    report: EvaluatedBody | None = None
    error: Problem | None = None
