"""What an evaluation found, as plain values: for a table, a page, and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from service.evaluation.comparison import Difference
from service.evaluation.information import Information

FORMAT: Final = 1


@dataclass(frozen=True)
class Score:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Spoiled:
    """What is left when texts are spoiled: one kind of change at one level.

    Args:
        level: of the change, as `changes.Change` has it.
        score: the deciding metric over the sample then.
        lost: by how much that is below the sample's score with its texts as they are.
        cosine: of a spoiled text's vector to that of the text as it is, the mean.

    """

    level: float
    score: float
    lost: float
    cosine: float


@dataclass(frozen=True)
class Scored:
    """What one strategy scored on one data set.

    Args:
        strategy: its name.
        scores: by metric.
        difference: to the reference strategy on the deciding metric; None for the reference itself.

    """

    strategy: str
    scores: dict[str, Score]
    difference: Difference | None


@dataclass(frozen=True)
class Row(Scored):
    """One strategy on one data set, with all that is measured beside the scores.

    Args:
        robustness: by kind of change, by level.
        padding: the largest change of a number of the unit vector when its text is padded.
        information: what the vectors still hold; None where there were too few texts to say.
        pooling_share: time of this pooling as a share of the encoder's pass.

    """

    robustness: dict[str, list[Spoiled]]
    padding: float
    information: Information | None
    pooling_share: float


@dataclass(frozen=True)
class Speed:
    """Seconds of the encoder's pass alone and with every strategy, over the same texts."""

    texts: int
    tokens: int
    alone: float
    together: float

    @property
    def ratio(self) -> float:
        """How many times as long all strategies together take."""
        return self.together / self.alone


@dataclass(frozen=True)
class DataSet:
    """What was found on one data set.

    Args:
        name: its path.
        kind: `similarity`, `retrieval` or `classification`.
        items: what it consists of, in the plural.
        size: how many.
        texts: how many texts were embedded.
        metrics: by name; the first decides.
        reference: the strategy that the others are compared with.
        rows: one a strategy.
        speed: of the encoder, without and with all strategies.
        seconds: that each stage took: `embedding` is the one pass with all strategies, what follows is beside it.
        sample: how many items were spoiled to measure robustness.

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

    @property
    def best_first(self) -> list[Row]:
        """The rows by the metric that decides."""
        return sorted(self.rows, key=self._order)

    @property
    def compared(self) -> Sequence[Scored]:
        """All that were scored."""
        return self.rows

    @property
    def compared_best_first(self) -> list[Scored]:
        """The same by the metric that decides."""
        return sorted(self.compared, key=self._order)

    def _order(self, scored: Scored) -> float:
        return -scored.scores[self.metrics[0]].value


@dataclass(frozen=True)
class DataSetWithSpans(DataSet):
    """What was found where documents are cut into spans as well.

    Args:
        by_spans: what was scored so; the rows are of whole documents.

    """

    by_spans: tuple[Scored, ...]

    @property
    def compared(self) -> Sequence[Scored]:
        """Whole documents, then spans."""
        return *self.rows, *self.by_spans


@dataclass(frozen=True)
class Described:
    """A strategy that took part.

    Args:
        name: as in the tables.
        spec: the pooling in its canonical form.
        dim: dimensions of a vector.
        weights: the folder of a saved pooler, where it is one.

    """

    name: str
    spec: str
    dim: int
    weights: str | None


@dataclass(frozen=True)
class Report:
    """A whole evaluation.

    Args:
        model: as it was named.
        declared: the pooling that its checkpoint declares, if any.
        runtime: what computed the token states.
        strategies: those that took part.
        data: one a data set.
        choice: the strategy advised.
        advice: why, in a sentence.
        yaml: the line of a config that applies it, and where documents are to be cut one more with the collection's.
        fit: whether fitting a pooler is worth the while.
        notes: what else there is to know, in sentences.

    """

    model: str
    declared: str | None
    runtime: str
    strategies: tuple[Described, ...]
    data: tuple[DataSet, ...]
    choice: str
    advice: str
    yaml: str
    fit: bool
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON can hold it."""
        found = {"format": FORMAT, **asdict(self)}
        for written, data in zip(found["data"], self.data, strict=True):
            written["speed"]["ratio"] = data.speed.ratio
            rows = (*written["rows"], *written.get("by_spans", ()))
            for row_written, row in zip(rows, data.compared, strict=True):
                row_written["verdict"] = row.difference.verdict if row.difference else None
        return found
