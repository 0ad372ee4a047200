"""Everything that is asked of the strategies, one data set after the other, and the advice in the end."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from pooling.tasks import Part, Search, Task
from pooling.tasks.similarity import cosines
from pooling.tasks.task import Indices, Outcomes
from service.arrays import Vectors
from service.embedding.embedder import Embedder
from service.errors import InvalidInput
from service.evaluation import information, perturbations
from service.evaluation.advice import Candidate, advise, advise_spans
from service.evaluation.comparison import Comparison, compare
from service.evaluation.encoding import Advance, Encoding
from service.evaluation.information import Information
from service.evaluation.report import DataSet, DataSetWithSpans, Report, Row, Score, Scored, Speed, Spoiled
from service.evaluation.spans import BySpans
from service.evaluation.strategies import Strategy

_SPOILED: Final = 100
"""Most items whose texts are spoiled; each of the changes is a pass over them."""
_PADDED: Final = 16
"""Texts that are padded."""
_TIMED_TOKENS: Final = 2048
"""About so many tokens are timed."""
_INFORMING: Final = 2000
"""Most texts from which the information in vectors is measured."""

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""
ByStrategy = Sequence[Sequence[Vectors]]
"""For each strategy the vectors of each part."""


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
    seconds: dict[str, float]
    sample: int
    cut: int


class _Stages:
    """The stages of work on a data set: their progress, and the seconds that each took."""

    def __init__(self, name: str, progress: Progress) -> None:
        self.seconds: dict[str, float] = {}
        self._name = name
        self._progress = progress

    @contextmanager
    def stage(self, what: str, total: int) -> Iterator[Advance]:
        done = 0

        def advance(more: int) -> None:
            nonlocal done
            done += more
            self._progress(f"{self._name}: {what}", done, total)

        advance(0)
        began = time.perf_counter()
        yield advance
        self.seconds[what] = time.perf_counter() - began


def evaluate(
    model: Embedder,
    strategies: Sequence[Strategy],
    tasks: Sequence[tuple[str, Task]],
    *,
    by_spans: Sequence[BySpans] = (),
    notes: Sequence[str] = (),
    progress: Progress = lambda *_: None,
) -> Report:
    """Score strategies on data sets.

    Vectors lie in a temporary folder (`TMPDIR`) while a data set is worked on, so that memory stays small.

    Args:
        model: whose encoder runs, once over each text, and over the documents once more for each of `by_spans`.
        strategies: what is compared.
        tasks: the data sets, by name.
        by_spans: what is compared as well, over spans of the documents, where every data set is a search; of the
            same strategies.
        notes: sentences for the report.
        progress: see `Progress`.

    Raises:
        ServiceError: a text has no token, or a vector is not finite.

    """
    encoding = Encoding(model, [strategy.embedder for strategy in strategies])
    measured = []
    for name, task in tasks:
        try:
            with tempfile.TemporaryDirectory(prefix="millpond-evaluate-") as folder:
                measured.append(_measure(encoding, strategies, by_spans, task, Path(folder), name, progress))
        except InvalidInput as error:
            raise InvalidInput(f"{name}: {error}") from None
    declared = next((strategy.name for strategy in strategies if strategy.embedder.recipe.declared), None)
    comparisons = [each.comparison for each in measured]
    if by_spans:
        whole, spans = ([each.name for each in some] for some in (strategies, by_spans))
        advice = advise_spans(whole, spans, comparisons, declared)
    else:
        candidates = [Candidate(strategy.name, strategy.weights is not None) for strategy in strategies]
        advice = advise(candidates, comparisons, declared)
    compared = (*strategies, *by_spans)
    chosen = next(each for each in compared if each.name == advice.strategy)
    limit, read = model.max_tokens, "not read but in spans" if by_spans else "not read"
    cut = [
        f"{each.name}: {each.cut} texts are longer than {limit} tokens; what is beyond was {read}."
        for each in measured
        if each.cut
    ]
    return Report(
        model=model.recipe.checkpoint.name,
        declared=declared,
        runtime=f"{model.encoder.runtime.backend} {model.encoder.runtime.precision}",
        strategies=tuple(each.described() for each in compared),
        data=tuple(_found(each, declared or advice.strategy) for each in measured),
        choice=advice.strategy,
        advice=advice.sentence,
        yaml=chosen.yaml,
        fit=advice.fit,
        notes=(*notes, *cut),
    )


def _measure(
    encoding: Encoding,
    strategies: Sequence[Strategy],
    by_spans: Sequence[BySpans],
    task: Task,
    folder: Path,
    name: str,
    progress: Progress,
) -> _Measured:
    stages = _Stages(name, progress)
    texts = [text for part in task.parts for text in part.texts]
    with stages.stage("embedding", len(texts)) as advance:
        parts = [encoding.vectors(part, folder / str(place), advance) for place, part in enumerate(task.parts)]
        by_strategy = list(zip(*parts, strict=True))
    of_spans: list[Outcomes] = []
    if by_spans:
        with stages.stage("spans", len(by_spans) * len(task.parts[0].texts)) as advance:
            queries = {strategy.embedder: own[1] for strategy, own in zip(strategies, by_strategy, strict=True)}
            of_spans = _by_spans(by_spans, task, queries, folder, advance)
    with stages.stage("scoring", len(strategies)) as advance:
        outcomes = []
        for vectors in by_strategy:
            outcomes.append(task.outcomes(vectors))
            advance(1)
        names = [each.name for each in (*strategies, *by_spans)]
        comparison = compare(task, names, np.stack([*outcomes, *of_spans]))
    with stages.stage("information", len(strategies)) as advance:
        informing = _information(encoding, task.parts[0].texts, by_strategy, advance)
    chosen = np.sort(np.random.default_rng(0).permutation(task.size)[:_SPOILED])
    with stages.stage("robustness", len(perturbations.CHANGES) + 2) as advance:
        padding = encoding.padding(
            [task.parts[0].texts[place] for place in _spread(len(task.parts[0].texts), _PADDED)]
        )
        advance(1)
        robustness = _robustness(encoding, task, chosen, by_strategy, advance)
    timed = _timed(task.parts[0], encoding)
    with stages.stage("speed", encoding.speed_passes * len(timed.texts)) as advance:
        speed, shares = encoding.speed(timed, advance)
    return _Measured(
        name=name,
        task=task,
        comparison=comparison,
        robustness=robustness,
        padding=padding,
        information=informing,
        speed=speed,
        shares=shares,
        seconds=stages.seconds,
        sample=len(chosen),
        cut=encoding.cut(texts),
    )


def _by_spans(
    by_spans: Sequence[BySpans], task: Task, queries: Mapping[Embedder, Vectors], folder: Path, advance: Advance
) -> list[Outcomes]:
    assert isinstance(task, Search)
    found = []
    for place, each in enumerate(by_spans):
        spans, starts = each.vectors(task.parts[0].texts, folder / f"spans-{place}", advance)
        found.append(task.outcomes_by_spans(queries[each.embedder], spans, starts))
    return found


def _information(
    encoding: Encoding, texts: Sequence[str], by_strategy: ByStrategy, advance: Advance
) -> list[Information | None]:
    some = _spread(len(texts), _INFORMING)
    present = information.presence(encoding.ids([texts[place] for place in some]))
    found = []
    for vectors in by_strategy:
        found.append(information.measure(vectors[0][some], present))
        advance(1)
    return found


def _robustness(
    encoding: Encoding, task: Task, chosen: Indices, by_strategy: ByStrategy, advance: Advance
) -> list[dict[str, list[Spoiled]]]:
    """For each strategy and kind of change, what is left at each level."""
    texts = task.texts_of(chosen)
    spans = encoding.spans(texts)
    versions = []
    for version in (texts, *(_spoiled(encoding, texts, spans, change) for change in perturbations.CHANGES)):
        versions.append(encoding.few_vectors(Part(version, task.spoiled_role)))
        advance(1)
    found = []
    for parts, own in zip(by_strategy, zip(*versions, strict=True), strict=True):
        scores = task.scores(task.outcomes_with(chosen, own, parts), chosen)[:, 0]
        kinds: dict[str, list[Spoiled]] = {}
        for change, vectors, score in zip(perturbations.CHANGES, own[1:], scores[1:], strict=True):
            cosine = float(cosines(own[0], vectors).mean())
            left = Spoiled(change.level, float(score), float(scores[0] - score), cosine)
            kinds.setdefault(change.kind, []).append(left)
        found.append(kinds)
    return found


def _spoiled(
    encoding: Encoding, texts: Sequence[str], spans: Sequence[perturbations.Spans], change: perturbations.Change
) -> list[str]:
    """The texts, changed; one of which no token would be left stays as it is."""
    after = perturbations.spoil(texts, spans, change)
    return [new if left else old for old, new, left in zip(texts, after, encoding.spans(after), strict=True)]


def _timed(part: Part, encoding: Encoding) -> Part:
    """Texts from all over a part, with about `_TIMED_TOKENS` tokens."""
    some = [part.texts[place] for place in _spread(len(part.texts), 1024)]
    total = sum(len(ids) for ids in encoding.ids(some))
    order = np.random.default_rng(0).permutation(len(some))
    count = max(1, int(_TIMED_TOKENS / total * len(some)))
    return Part([some[place] for place in order[:count]], part.role)


def _spread(count: int, most: int) -> Indices:
    """At most so many places out of `count`, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


def _found(measured: _Measured, reference: str) -> DataSet:
    comparison, task = measured.comparison, measured.task
    low, high = comparison.intervals()
    differences = comparison.against(reference)
    scored = []
    for place, strategy in enumerate(comparison.strategies):
        figures = zip(comparison.scores[place].tolist(), low[place].tolist(), high[place].tolist(), strict=True)
        scores = dict(zip(comparison.metrics, (Score(*each) for each in figures), strict=True))
        scored.append(Scored(strategy, scores, None if strategy == reference else differences[strategy]))
    beside = zip(measured.robustness, measured.padding, measured.information, measured.shares, strict=True)
    rows = [Row(each.strategy, each.scores, each.difference, *of) for of, each in zip(beside, scored, strict=False)]
    found = DataSet(
        name=measured.name,
        kind=task.kind,
        items=task.items,
        size=task.size,
        texts=sum(len(part.texts) for part in task.parts),
        metrics=task.metrics,
        reference=reference,
        rows=tuple(rows),
        speed=measured.speed,
        seconds=measured.seconds,
        sample=measured.sample,
    )
    by_spans = tuple(scored[len(rows) :])
    return DataSetWithSpans(**vars(found), by_spans=by_spans) if by_spans else found
