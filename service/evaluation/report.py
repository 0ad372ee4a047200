"""The results of an evaluation as plain values, for tables, a page, and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from service.evaluation.comparison import Difference, Score
from service.evaluation.information import Information

FORMAT: Final = 1

Axis = Literal["layer", "dimensions"]
AXES: Final[dict[Axis, str]] = {
    "layer": "by layer, where 0 are the embeddings",
    "dimensions": "by leading dimensions, normalised anew",
}
"""How the scores along each axis are headed."""


@dataclass(frozen=True)
class Perturbed:
    """What is left of the score when texts are perturbed, in one way at one level.

    Args:
        level: of the `Perturbation`.
        score: the deciding metric over a sample of the items.
        lost: how far that is below the score of the unperturbed sample.
        cosine: mean cosine of the vectors of a text before and after.
    """

    level: float
    score: float
    lost: float
    cosine: float


@dataclass(frozen=True)
class Scored:
    """The scores of one strategy on one data set.

    Args:
        strategy: its name.
        scores: by metric.
        difference: to the reference strategy on the deciding metric; None for the reference itself.
    """

    strategy: str
    scores: dict[str, Score]
    difference: Difference | None


@dataclass(frozen=True)
class Varied(Scored):
    """The scores of a variant of a strategy, which may be a point of a curve.

    Args:
        pooling: the strategy's name.
        own: where on the curve the strategy itself is; None for nowhere.
    """

    pooling: str
    own: int | None

    @property
    def place(self) -> int | None:
        """Where on the curve it is; None for nowhere."""
        raise NotImplementedError


@dataclass(frozen=True)
class Layered(Varied):
    """The scores of a strategy over other layers than its own.

    Args:
        layer: its layer; None for a mean of several.
        layers: the same as `Layers.spec` has it.
    """

    layer: int | None
    layers: str | dict[str, Any]

    @property
    def place(self) -> int | None:
        """The layer."""
        return self.layer


@dataclass(frozen=True)
class Cut(Varied):
    """The scores of a strategy of which the leading dimensions alone are kept.

    Args:
        dimensions: how many are kept.
    """

    dimensions: int

    @property
    def place(self) -> int:
        """How many are kept."""
        return self.dimensions


@dataclass(frozen=True)
class Curve:
    """The scores of a pooling along an axis.

    Args:
        pooling: its name.
        axis: what is counted along it.
        points: number and scores of each point, in ascending order.
    """

    pooling: str
    axis: Axis
    points: tuple[tuple[int, Scored], ...]


@dataclass(frozen=True)
class Row(Scored):
    """One strategy on one data set, with everything that is measured besides the scores.

    Args:
        robustness: by kind of perturbation, in ascending levels.
        padding: the largest change of a component of the unit vector when its text is padded.
        information: what the vectors retain; None if there are too few texts to measure.
        pooling_share: time of this pooling as a share of the encoder's pass.
    """

    robustness: dict[str, list[Perturbed]]
    padding: float
    information: Information | None
    pooling_share: float


@dataclass(frozen=True)
class Speed:
    """Seconds of the encoder's pass over some texts, alone and with all strategies."""

    texts: int
    tokens: int
    alone: float
    together: float

    @property
    def ratio(self) -> float:
        """The time with all strategies, relative to the encoder alone."""
        return self.together / self.alone


@dataclass(frozen=True)
class DataSet:
    """The results on one data set.

    Args:
        name: its path.
        kind: of task: `similarity`, `retrieval` or `classification`.
        items: what an item is, in the plural.
        size: number of items.
        texts: number of texts that were embedded.
        metrics: their names; the first decides.
        reference: the strategy that the others are compared with.
        rows: one per strategy.
        speed: of the encoder, alone and with all strategies.
        seconds: of each stage; `embedding` is the one pass with all strategies, the others follow it.
        sample: number of items that were perturbed to measure robustness.
        by_layers: scores over other layers, where those were compared; the rows are over those of the model.
        by_dimensions: scores of the leading dimensions alone, where those were compared.
        by_spans: scores over spans of documents, where those were compared; the rows are over whole documents.
        reranked: scores after the first documents were scored anew, where that was compared.
    """

    name: str
    kind: str
    items: str
    size: int
    texts: int
    metrics: tuple[str, ...]
    reference: str
    rows: tuple[Row, ...]
    speed: Speed
    seconds: dict[str, float]
    sample: int
    by_layers: tuple[Layered, ...] = ()
    by_dimensions: tuple[Cut, ...] = ()
    by_spans: tuple[Scored, ...] = ()
    reranked: tuple[Scored, ...] = ()

    @property
    def best_first(self) -> list[Row]:
        """The rows in descending order of the deciding metric."""
        return sorted(self.rows, key=self._order)

    @property
    def compared(self) -> Sequence[Scored]:
        """Everything that was scored: whole documents, over other layers, cut, over spans, and re-ranked."""
        return *self.rows, *self.by_layers, *self.by_dimensions, *self.by_spans, *self.reranked

    @property
    def compared_best_first(self) -> list[Scored]:
        """The same in descending order of the deciding metric."""
        return sorted(self.compared, key=self._order)

    @property
    def curves(self) -> list[Curve]:
        """The scores of each pooling by layer, from the embeddings to the last one, and by leading dimensions."""
        found: dict[tuple[Axis, str], dict[int, Scored]] = {}
        rows = {row.strategy: row for row in self.rows}
        axes: dict[Axis, Sequence[Varied]] = {"layer": self.by_layers, "dimensions": self.by_dimensions}
        for axis, variants in axes.items():
            for each in variants:
                points = found.setdefault((axis, each.pooling), {})
                for place, scored in ((each.place, each), (each.own, rows[each.pooling])):
                    if place is not None:
                        points[place] = scored
        return [Curve(pooling, axis, tuple(sorted(points.items()))) for (axis, pooling), points in found.items()]

    def _order(self, scored: Scored) -> float:
        return -scored.scores[self.metrics[0]].value


@dataclass(frozen=True)
class StrategySummary:
    """A strategy that was compared.

    Args:
        name: as in the tables.
        spec: the pooling in canonical form.
        dim: dimensions of a vector.
        weights: the folder, for a saved pooler.
        layers: whose states are pooled, as `Layers.spec` has it.
    """

    name: str
    spec: str
    dim: int
    weights: str | None
    layers: str | dict[str, Any] = "last"


@dataclass(frozen=True)
class Report:
    """A whole evaluation.

    Args:
        model: as it was named.
        declared: the pooling that its checkpoint declares, if any.
        runtime: what computed the token states.
        strategies: those that were compared.
        data: one per data set.
        choice: the advised strategy.
        advice: a sentence that gives the reason.
        yaml: the line of a config that applies it, and the chunking of a collection if spans are advised.
        fit: whether it is worthwhile to fit a pooler.
        notes: further sentences for the user.
    """

    model: str
    declared: str | None
    runtime: str
    strategies: tuple[StrategySummary, ...]
    data: tuple[DataSet, ...]
    choice: str
    advice: str
    yaml: str
    fit: bool
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the report as values that JSON can represent."""
        found = {"format": FORMAT, **asdict(self)}
        for written, data in zip(found["data"], self.data, strict=True):
            written["speed"]["ratio"] = data.speed.ratio
            optional_fields = ("by_layers", "by_dimensions", "by_spans", "reranked")
            rows = [row for field in ("rows", *optional_fields) for row in written[field]]
            for row_written, row in zip(rows, data.compared, strict=True):
                row_written["verdict"] = row.difference.verdict if row.difference else None
            for optional in optional_fields:
                if not written[optional]:
                    del written[optional]
        return found
