"""Evaluates strategies on one data set after another, and advises which to use."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from pooling.tasks import Part, Retrieval, Task
from pooling.tasks.task import Indices, Outcomes
from service.arrays import Vectors
from service.embedding.embedder import Embedder
from service.encoder.progress import Progress, no_progress
from service.errors import InvalidInput
from service.evaluation import information, robustness
from service.evaluation.advice import advise, advise_reranking, advise_spans
from service.evaluation.comparison import Comparison, Difference, Score, compare
from service.evaluation.dimensions import Leading
from service.evaluation.encoding import BATCH, SPEED_PASSES, Advance, Encoding
from service.evaluation.information import Information
from service.evaluation.layers import OverLayers
from service.evaluation.report import Cut, DataSet, Layered, Perturbed, Report, Row, Scored
from service.evaluation.reranking import Reranking
from service.evaluation.spans import BySpans
from service.evaluation.strategies import Strategy
from service.similarity import COSINE, SIMILARITIES

_PERTURBED: Final = 100
"""Most items whose texts are perturbed."""
_PADDED: Final = 16
"""Most texts that are padded."""
_TIMED_TOKENS: Final = 2048
"""Approximate number of tokens that are timed."""
_INFORMATIVE: Final = 2000
"""Most texts by which the information in vectors is measured."""


@dataclass(frozen=True)
class _Measured:
    """Measurements on one data set.

    Args:
        comparison: of all strategies.
        besides: by strategy over whole documents, the fields that `Row` adds to `Scored`.
        spans: how many strategies over spans follow those; what was re-ranked comes last.
        data: makes the `DataSet`, of which it lacks the reference and what is compared with it.
        truncated: how many texts are longer than the model takes.
    """

    comparison: Comparison
    besides: list[tuple[dict[str, list[Perturbed]], float, Information | None, float]]
    spans: int
    data: partial[DataSet]
    truncated: int


class _Stages:
    """Reports the progress of each stage of work on a data set, and measures its seconds."""

    def __init__(self, name: str, progress: Progress) -> None:
        self.seconds: dict[str, float] = {}
        self._name = name
        self._progress = progress
        self.look: Callable[[], object] = lambda: None
        """Tells the progress as it was last told."""

    @contextmanager
    def stage(self, what: str, total: int) -> Iterator[Advance]:
        done = 0

        def advance(more: int) -> None:
            nonlocal done
            done += more
            self._progress(f"{self._name}: {what}", done, total)

        advance(0)
        self.look = partial(advance, 0)
        began = time.perf_counter()
        yield advance
        self.seconds[what] = time.perf_counter() - began


def evaluate(
    model: Embedder,
    strategies: Sequence[Strategy],
    tasks: Sequence[tuple[str, Task]],
    *,
    by_layers: Sequence[OverLayers] = (),
    by_dimensions: Sequence[Leading] = (),
    by_spans: Sequence[BySpans] = (),
    reranking: Reranking | None = None,
    notes: Sequence[str] = (),
    progress: Progress = no_progress,
    batch_size: int = BATCH,
) -> Report:
    """Evaluate strategies on data sets.

    Vectors are in a temporary folder (`TMPDIR`) while a data set is evaluated, so that memory stays small.

    Args:
        model: whose encoder runs once over each text, and once more over the documents for each of `by_spans`.
        strategies: to compare.
        tasks: the data sets, by name.
        by_layers: strategies over other layers, whose scores are compared as well; from the same pass.
        by_dimensions: strategies cut to their leading dimensions, likewise; they take no part in the advice.
        by_spans: to compare as well, if every data set is a retrieval; of the same strategies.
        reranking: of every strategy over whole documents, to compare as well, if every data set is a retrieval.
        notes: sentences for the report.
        progress: see `Progress`; called before each step of the work, and what it raises ends it.
        batch_size: texts that are queued at a time; fewer leave more room for others who use the encoder.

    Raises:
        ServiceError: a text has no token, or a vector is not finite.
    """
    tasks, followed = _by_declared_similarity(model, tasks)
    further = (*by_layers, *by_dimensions)
    encoding, every = (
        Encoding(model, [strategy.to_vectors for strategy in some], batch_size)
        for some in (strategies, (*strategies, *further))
    )
    measured = []
    for name, task in tasks:
        try:
            with tempfile.TemporaryDirectory(prefix="millpond-evaluate-") as folder:
                measured.append(
                    _measure(
                        encoding,
                        every,
                        strategies,
                        further,
                        by_spans,
                        reranking,
                        task,
                        Path(folder),
                        name,
                        progress,
                    )
                )
        except InvalidInput as error:
            raise InvalidInput(f"{name}: {error}", where=error.where) from None
    declared = next((strategy.name for strategy in strategies if strategy.embedder.recipe.declared), None)
    comparisons = [each.comparison for each in measured]
    if by_spans:
        whole, spans = ([each.name for each in some] for some in (strategies, by_spans))
        advice = advise_spans(whole, spans, comparisons, declared)
    else:
        fixed = [each.name for each in (*strategies, *by_layers) if each.weights is None]
        learned = [each.name for each in (*strategies, *by_layers) if each.weights is not None]
        advice = advise(fixed, learned, comparisons, declared)
    sentence = advice.sentence
    if reranking is not None:
        sentence += advise_reranking(advice.strategy, reranking.name(advice.strategy), reranking.depth, comparisons)
    compared = (*strategies, *further, *by_spans)
    limit, read = model.recipe.max_tokens, "not read but in spans" if by_spans else "not read"
    truncated = [
        f"{name}: {each.truncated} texts are longer than {limit} tokens; what is beyond was {read}."
        for (name, _), each in zip(tasks, measured, strict=True)
        if each.truncated
    ]
    return Report(
        model=model.recipe.checkpoint.name,
        declared=declared,
        runtime=f"{model.encoder.runtime.backend} {model.encoder.runtime.precision}",
        strategies=tuple(each.summary() for each in compared),
        data=tuple(_data_set(each, declared or advice.strategy, by_layers, by_dimensions) for each in measured),
        choice=advice.strategy,
        advice=sentence,
        yaml=next(each.yaml for each in compared if each.name == advice.strategy),
        fit=advice.fit,
        notes=(*notes, *followed, *truncated),
    )


def _by_declared_similarity(
    model: Embedder, tasks: Sequence[tuple[str, Task]]
) -> tuple[Sequence[tuple[str, Task]], list[str]]:
    """Return the data sets scored by the similarity that the checkpoint declares, and a note unless it is cosine."""
    declared = model.recipe.checkpoint.similarity
    if declared == COSINE.name:
        return tasks, []
    if declared not in SIMILARITIES:
        return tasks, [f"The checkpoint declares the similarity {declared}; vectors are compared by cosine here."]
    note = f"Vectors are compared by {declared}, the similarity that the checkpoint declares."
    return [(name, task.compared_by(declared)) for name, task in tasks], [note]


def _measure(
    encoding: Encoding,
    every: Encoding,
    strategies: Sequence[Strategy],
    further: Sequence[Strategy],
    by_spans: Sequence[BySpans],
    reranking: Reranking | None,
    task: Task,
    folder: Path,
    name: str,
    progress: Progress,
) -> _Measured:
    stages = _Stages(name, progress)
    task = task.watched_by(lambda: stages.look())
    texts = [text for part in task.parts for text in part.texts]
    first = task.parts[0]
    with stages.stage("embedding", len(texts)) as advance:
        parts = [every.vectors(part, folder / str(number), advance) for number, part in enumerate(task.parts)]
        scored = list(zip(*parts, strict=True))
    vectors = scored[: len(strategies)]
    of_spans: list[Outcomes] = []
    if by_spans:
        with stages.stage("spans", len(by_spans) * len(first.texts)) as advance:
            queries = {strategy.embedder: own[1] for strategy, own in zip(strategies, vectors, strict=True)}
            of_spans = _outcomes_by_spans(by_spans, task, queries, folder, advance)
    anew: list[Outcomes] = []
    if reranking is not None:
        assert isinstance(task, Retrieval)
        with stages.stage("re-ranking", task.size) as advance:
            anew = reranking.outcomes(task, vectors, advance)
    with stages.stage("scoring", len(scored)) as advance:
        outcomes = []
        for own in scored:
            outcomes.append(task.outcomes(own))
            advance(1)
        names = [each.name for each in (*strategies, *further, *by_spans)]
        if reranking is not None:
            names += [reranking.name(strategy.name) for strategy in strategies]
        comparison = compare(task, names, np.stack([*outcomes, *of_spans, *anew]), advance=advance)
    with stages.stage("information", len(strategies)) as advance:
        informative = _spread(len(first.texts), _INFORMATIVE)
        present = information.presence(encoding.ids([first.texts[text] for text in informative]))
        retained = []
        for own in vectors:
            retained.append(information.measure(own[0][informative], present))
            advance(1)
    chosen = np.sort(np.random.default_rng(0).permutation(task.size)[:_PERTURBED])
    few = [first.texts[text] for text in _spread(len(first.texts), _PADDED)]
    perturbed = robustness.VERSIONS * len(task.perturbable(chosen).texts)
    with stages.stage("robustness", len(few) + perturbed) as advance:
        padding = encoding.padding(Part(few, first.role), advance)
        robust = robustness.measure(encoding, task, chosen, vectors, advance)
    timed = _timed(first, encoding)
    with stages.stage("speed", SPEED_PASSES * len(timed.texts)) as advance:
        speed, shares = every.speed(timed, advance)
    data = partial(
        DataSet,
        name=name,
        kind=task.kind,
        items=task.items,
        size=task.size,
        texts=len(texts),
        metrics=task.metrics,
        speed=speed,
        seconds=stages.seconds,
        sample=len(chosen),
    )
    besides = list(zip(robust, padding, retained, shares[: len(strategies)], strict=True))
    return _Measured(comparison, besides, len(by_spans), data, encoding.truncated(texts))


def _outcomes_by_spans(
    by_spans: Sequence[BySpans], task: Task, queries: Mapping[Embedder, Vectors], folder: Path, advance: Advance
) -> list[Outcomes]:
    assert isinstance(task, Retrieval)
    found = []
    for number, each in enumerate(by_spans):
        spans, starts = each.vectors(task.parts[0].texts, folder / f"spans-{number}", advance)
        found.append(task.outcomes_by_spans(queries[each.embedder], spans, starts))
    return found


def _timed(part: Part, encoding: Encoding) -> Part:
    """Return texts from all over a part, with about `_TIMED_TOKENS` tokens."""
    some = [part.texts[text] for text in _spread(len(part.texts), 1024)]
    total = sum(len(ids) for ids in encoding.ids(some))
    order = np.random.default_rng(0).permutation(len(some))
    count = max(1, int(_TIMED_TOKENS / total * len(some)))
    return Part([some[text] for text in order[:count]], part.role)


def _spread(count: int, most: int) -> Indices:
    """Return at most so many indices below `count`, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


def _data_set(
    measured: _Measured, reference: str, by_layers: Sequence[OverLayers], by_dimensions: Sequence[Leading]
) -> DataSet:
    comparison = measured.comparison
    low, high = comparison.intervals()
    differences = comparison.against(reference)
    scored = []
    for number, strategy in enumerate(comparison.strategies):
        figures = zip(comparison.scores[number].tolist(), low[number].tolist(), high[number].tolist(), strict=True)
        scores = dict(zip(comparison.metrics, (Score(*each) for each in figures), strict=True))
        scored.append(Scored(strategy, scores, None if strategy == reference else differences[strategy]))
    whole = zip(scored, measured.besides, strict=False)
    rows = tuple(Row(each.strategy, each.scores, each.difference, *besides) for each, besides in whole)
    others = scored[len(rows) :]
    layered = tuple(
        Layered(*_fields(each), over.pooling, over.own, over.layer, over.summary().layers)
        for each, over in zip(others, by_layers, strict=False)
    )
    others = others[len(layered) :]
    cuts = tuple(
        Cut(*_fields(each), kept.pooling, kept.embedder.dim, kept.dimensions)
        for each, kept in zip(others, by_dimensions, strict=False)
    )
    others = others[len(cuts) :]
    by_spans, anew = tuple(others[: measured.spans]), tuple(others[measured.spans :])
    further = {"by_layers": layered, "by_dimensions": cuts, "by_spans": by_spans, "reranked": anew}
    return measured.data(reference=reference, rows=rows, **further)


def _fields(scored: Scored) -> tuple[str, dict[str, Score], Difference | None]:
    return scored.strategy, scored.scores, scored.difference
