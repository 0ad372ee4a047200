"""Everything that is asked of the strategies, one data set after the other, and the advice in the end."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from pooling.evaluation import Candidate, Comparison, Part, Task, advise, changes, compare, information
from pooling.evaluation.information import Information
from pooling.evaluation.report import DataSet, Report, Row, Score, Speed, Spoiled
from pooling.evaluation.similarity import cosines
from pooling.evaluation.tasks import Indices
from service.embedder import Embedder, Vectors
from service.evaluation.encoding import Advance, Encoding
from service.evaluation.strategies import Strategy

_SPOILED: Final = 200
"""Most items whose texts are spoiled; each of the changes is a pass over them."""
_PADDED: Final = 32
"""Texts that are padded."""
_TIMED_TOKENS: Final = 8192
"""About so many tokens are timed."""
_INFORMING: Final = 2000
"""Most texts from which the information in vectors is measured."""

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is (0: not known)."""


@dataclass(frozen=True)
class _Measured:
    """What one data set gave, lists by strategy."""

    name: str
    task: Task
    comparison: Comparison
    robustness: list[dict[str, list[Spoiled]]]
    padding: list[float]
    information: list[Information | None]
    speed: Speed
    shares: list[float]
    sample: int


def evaluate(
    model: Embedder,
    strategies: Sequence[Strategy],
    tasks: Sequence[tuple[str, Task]],
    *,
    notes: Sequence[str] = (),
    progress: Progress = lambda *_: None,
) -> Report:
    """Score strategies on data sets.

    Vectors lie in a temporary folder (`TMPDIR`) while a data set is worked on, so that memory stays small.

    Args:
        model: whose encoder runs, once over each text.
        strategies: what is compared.
        tasks: the data sets, by name.
        notes: sentences for the report.
        progress: see `Progress`.

    Raises:
        ServiceError: a text has no token, or a vector is not finite.

    """
    encoding = Encoding(model, [strategy.embedder for strategy in strategies])
    measured = []
    for name, task in tasks:
        with tempfile.TemporaryDirectory(prefix="millpond-evaluate-") as folder:
            measured.append(_measure(encoding, strategies, name, task, Path(folder), progress))
    checkpoint = model.recipe.checkpoint
    declared = None
    if checkpoint.pooling is not None:
        declared = model.recipe.with_pooling(checkpoint.pooling).pooler.spec
    candidates = [Candidate(strategy.name, strategy.weights is not None) for strategy in strategies]
    advice = advise(candidates, [each.comparison for each in measured], declared)
    chosen = next(strategy for strategy in strategies if strategy.name == advice.strategy)
    return Report(
        model=checkpoint.name,
        declared=declared,
        runtime=f"{model.encoder.runtime.backend} {model.encoder.runtime.precision}",
        strategies=tuple(strategy.described() for strategy in strategies),
        data=tuple(_found(each, declared or advice.strategy) for each in measured),
        choice=advice.strategy,
        advice=advice.sentence,
        yaml=chosen.yaml,
        notes=tuple(notes),
    )


def _measure(
    encoding: Encoding, strategies: Sequence[Strategy], name: str, task: Task, folder: Path, progress: Progress
) -> _Measured:
    texts = sum(len(part.texts) for part in task.parts)
    advance = _counter(progress, f"{name}: embedding", texts)
    parts = [encoding.vectors(part, folder / str(place), advance) for place, part in enumerate(task.parts)]
    by_strategy = list(zip(*parts, strict=True))

    advance = _counter(progress, f"{name}: scoring", len(strategies))
    outcomes = []
    for vectors in by_strategy:
        outcomes.append(task.outcomes(vectors))
        advance(1)
    progress(f"{name}: intervals", 0, 0)
    comparison = compare(task, [strategy.name for strategy in strategies], np.stack(outcomes))

    main = task.parts[0]
    some = _spread(len(main.texts), _INFORMING)
    present = information.presence(encoding.ids([main.texts[place] for place in some]))
    advance = _counter(progress, f"{name}: information", len(strategies))
    informing = []
    for vectors in by_strategy:
        informing.append(information.measure(vectors[0][some], present))
        advance(1)

    chosen = np.sort(np.random.default_rng(0).permutation(task.size)[:_SPOILED])
    timed = _timed(main, encoding)
    speed, shares = encoding.speed(timed, _counter(progress, f"{name}: speed", 6 * len(timed.texts)))
    padded = [main.texts[place] for place in _spread(len(main.texts), _PADDED)]
    return _Measured(
        name=name,
        task=task,
        comparison=comparison,
        robustness=_robustness(encoding, task, chosen, by_strategy, _counter(progress, f"{name}: robustness", 9)),
        padding=encoding.padding(padded),
        information=informing,
        speed=speed,
        shares=shares,
        sample=len(chosen),
    )


def _robustness(
    encoding: Encoding, task: Task, chosen: Indices, by_strategy: Sequence[Sequence[Vectors]], advance: Advance
) -> list[dict[str, list[Spoiled]]]:
    """For each strategy and kind of change, what is left at each level."""
    texts = task.texts_of(chosen)
    spans = encoding.spans(texts)
    versions = []
    for spoiled in (texts, *(changes.spoil(texts, spans, change) for change in changes.CHANGES)):
        versions.append(encoding.few_vectors(Part(spoiled, task.spoiled_role)))
        advance(1)
    found = []
    for parts, own in zip(by_strategy, zip(*versions, strict=True), strict=True):
        scores = task.scores(task.outcomes_with(chosen, own, parts), chosen)[:, 0]
        kinds: dict[str, list[Spoiled]] = {}
        for change, vectors, score in zip(changes.CHANGES, own[1:], scores[1:], strict=True):
            cosine = float(cosines(own[0], vectors).mean())
            spoiled_row = Spoiled(change.level, float(score), float(scores[0] - score), cosine)
            kinds.setdefault(change.kind, []).append(spoiled_row)
        found.append(kinds)
    return found


def _timed(part: Part, encoding: Encoding) -> Part:
    """Texts from all over a part, with about `_TIMED_TOKENS` tokens."""
    some = [part.texts[place] for place in _spread(len(part.texts), 1024)]
    total = np.cumsum([len(ids) for ids in encoding.ids(some)])
    order = np.random.default_rng(0).permutation(len(some))
    count = max(1, int(_TIMED_TOKENS / total[-1] * len(some)))
    return Part([some[place] for place in order[:count]], part.role)


def _spread(count: int, most: int) -> Indices:
    """At most so many places out of `count`, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


def _counter(progress: Progress, stage: str, total: int) -> Advance:
    done = 0

    def advance(more: int) -> None:
        nonlocal done
        done += more
        progress(stage, done, total)

    advance(0)
    return advance


def _found(measured: _Measured, reference: str) -> DataSet:
    comparison, task = measured.comparison, measured.task
    low, high = comparison.intervals()
    differences = comparison.against(reference)
    rows = []
    for place, strategy in enumerate(comparison.strategies):
        figures = zip(comparison.scores[place].tolist(), low[place].tolist(), high[place].tolist(), strict=True)
        rows.append(
            Row(
                strategy=strategy,
                scores=dict(zip(comparison.metrics, (Score(*each) for each in figures), strict=True)),
                difference=None if strategy == reference else differences[strategy],
                robustness=measured.robustness[place],
                padding=measured.padding[place],
                information=measured.information[place],
                pooling_share=measured.shares[place],
            )
        )
    return DataSet(
        name=measured.name,
        kind=task.kind,
        items=task.items,
        size=task.size,
        texts=sum(len(part.texts) for part in task.parts),
        metrics=task.metrics,
        reference=reference,
        rows=tuple(rows),
        speed=measured.speed,
        sample=measured.sample,
    )
