"""What a deployment says of itself to Prometheus: read from its parts when it is asked, and from finished requests.

Names that begin with `te_` are those of text-embeddings-inference and mean the same, so that its dashboards work.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from math import inf
from typing import Final, TypeVar

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    UnknownMetricFamily,
)
from prometheus_client.registry import Collector

from service import __version__
from service.api.middleware.observe import EMBEDDING, LEFT, UNKNOWN
from service.collections import Collection
from service.deployment import Deployment
from service.encoder import Encoder
from service.errors import ServiceError
from service.index import IndexState
from service.observation import DURATIONS, POWERS_OF_TWO, Histogram, Observed

T = TypeVar("T")
MOST_COLLECTIONS: Final = 100
"""Collections with series of their own, those with the most vectors."""
_ANSWERS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Bounds in seconds, of which each route has a series."""
_FAILED: Final = 500
_PHASES: Final = ("tokenize", "queue", "inference", "search", "store")
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestFigures:
    """Counts requests as they end; called in the thread of the event loop."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str, int]] = Counter()
        """By method, route and status."""
        self.answers: defaultdict[str, Histogram] = defaultdict(lambda: Histogram(_ANSWERS))
        """Seconds by route."""
        self.phases = {name: Histogram(DURATIONS) for name in _PHASES}
        """Seconds of all requests."""
        self.asked: Counter[str] = Counter({"single": 0, "batch": 0})
        """Requests to embed, by whether they had one text or several."""
        self.answered: Counter[str] = Counter({"single": 0, "batch": 0})
        self.failed: Counter[str] = Counter()
        """Requests to embed that were refused or failed, by reason."""
        self.texts = self.embedded = 0
        """Texts of such requests, and of those that succeeded."""
        self.embedding = Histogram(DURATIONS)
        """Seconds of requests to embed that succeeded, and below of their phases."""
        self.embedding_phases = {name: Histogram(DURATIONS) for name in ("tokenize", "queue", "inference")}

    def work(self) -> tuple[int, Histogram]:
        """Return how many requests to routes that work for clients failed, and the seconds that such requests took.

        Those are the routes that anything was posted to; what only looks, as probes do, is left out.
        """
        posted = {route for method, route, _ in [*self.requests] if method == "POST" and route != UNKNOWN}
        failed = sum(n for (_, route, status), n in [*self.requests.items()] if route in posted and status >= _FAILED)
        answers = [histogram for route, histogram in [*self.answers.items()] if route in posted]
        return failed, Histogram.together(_ANSWERS, answers)

    def __call__(self, request: Observed) -> None:
        """Count a request."""
        method = request.method if request.method in _METHODS else UNKNOWN
        self.requests[method, request.route, request.status] += 1
        seconds = request.duration
        self.answers[request.route].add(seconds)
        durations = request.durations()
        for name, spent in durations.items():
            if (histogram := self.phases.get(name)) is not None:
                histogram.add(spent)
        if request.route in EMBEDDING and method == "POST":
            self._count_embedding(request, seconds, durations)

    def _count_embedding(self, request: Observed, seconds: float, durations: Mapping[str, float]) -> None:
        kind = "batch" if request.texts > 1 else "single"
        self.asked[kind] += 1
        self.texts += request.texts
        if request.status != 200:
            self.failed[_reason(request.status)] += 1
            return
        self.answered[kind] += 1
        self.embedded += request.texts
        self.embedding.add(seconds)
        for name, histogram in self.embedding_phases.items():
            histogram.add(durations.get(name, 0.0))


def registry_of(served: Deployment, requests: RequestFigures) -> CollectorRegistry:
    """Return what Prometheus reads of a deployment; each application has its own."""
    return registry_with(requests, DeploymentCollector(served))


def registry_with(requests: RequestFigures, others: Collector) -> CollectorRegistry:
    """Return what tells of the requests of this process, of itself, and whatever others collect."""
    registry = CollectorRegistry()
    registry.register(_RequestsCollector(requests))
    registry.register(others)
    ProcessCollector(registry=registry)
    return registry


class _RequestsCollector(Collector):
    def __init__(self, requests: RequestFigures) -> None:
        self._requests = requests

    def collect(self) -> Iterator[Metric]:
        """Yield what is told of requests."""
        yield _gauge("millpond_info", "The running version.", ("version",), [((__version__,), 1)])
        yield from self._of_requests()
        yield from self._of_embedding()

    def _of_requests(self) -> Iterator[Metric]:
        figures = self._requests
        counted = [((method, route, str(status)), n) for (method, route, status), n in [*figures.requests.items()]]
        yield _counter("millpond_http_requests", "Requests answered.", ("method", "route", "status"), counted)
        answers = [((route,), histogram) for route, histogram in [*figures.answers.items()]]
        yield _histogram("millpond_http_request_seconds", "From a request to its answer.", ("route",), answers)
        phases = [((name,), histogram) for name, histogram in figures.phases.items()]
        yield _histogram("millpond_phase_seconds", "A part of the work for a request.", ("phase",), phases)

    def _of_embedding(self) -> Iterator[Metric]:
        """Yield text-embeddings-inference's metrics of requests to embed, over all models."""
        figures = self._requests
        yield _plain("te_request_count", "Requests to embed.", ("method",), figures.asked)
        yield _plain("te_request_success", "Requests to embed that succeeded.", ("method",), figures.answered)
        yield _plain("te_request_failure", "Requests to embed that were refused or failed.", ("err",), figures.failed)
        yield _plain("te_embed_count", "Texts of requests to embed.", (), {"": figures.texts})
        yield _plain("te_embed_success", "Texts embedded.", (), {"": figures.embedded})
        spent = {f"{_TEI_PHASES[name]}_": histogram for name, histogram in figures.embedding_phases.items()}
        for part, histogram in {"": figures.embedding, **spent}.items():
            name = f"te_request_{part}duration"
            yield _histogram(name, "Seconds of requests that succeeded.", (), [((), histogram)])


class DeploymentCollector(Collector):
    """Tells of the models and collections of a deployment, and of the work for them."""

    def __init__(self, served: Deployment) -> None:
        self._served = served

    def collect(self) -> Iterator[Metric]:
        """Yield every metric but those of requests and of the process."""
        yield from self._of_passes()
        yield from self._of_encoders()
        yield from self._of_models()
        yield from self._of_rerankers()
        yield from self._of_sparse()
        yield from self._of_collections()

    def _of_passes(self) -> Iterator[Metric]:
        """Yield text-embeddings-inference's metrics of what waits and of passes, over all encoders."""
        encoders = [*self._served.encoders.values()]
        passes = [encoder.batcher.figures for encoder in encoders]
        lengths = Histogram(POWERS_OF_TWO)
        for each in passes:
            for length, times in [*each.lengths.items()]:
                lengths.add(length, times)
        yield _histogram("te_request_input_length", "Tokens of a text.", (), [((), lengths)])
        waiting = sum(encoder.batcher.queued[0] for encoder in encoders)
        yield _gauge("te_queue_size", "Texts that wait for a pass.", (), [((), waiting)])
        rows = Histogram.together(POWERS_OF_TWO[:13], (each.rows for each in passes))
        yield _histogram("te_batch_next_size", "Texts of a pass.", (), [((), rows)])
        tokens = Histogram.together(POWERS_OF_TWO, (each.tokens for each in passes))
        yield _histogram("te_batch_next_tokens", "Tokens of a pass, padding included.", (), [((), tokens)])

    def _of_encoders(self) -> Iterator[Metric]:
        encoders = [*self._served.encoders.values()]
        limit = self._served.config.batching.max_queued_tokens

        def of_each(value: Callable[[Encoder], T]) -> list[tuple[tuple[str], T]]:
            return [((encoder.checkpoint.name,), value(encoder)) for encoder in encoders]

        label = ("encoder",)
        yield _gauge("millpond_queue_texts", "Texts that wait.", label, of_each(lambda e: e.batcher.queued[0]))
        yield _gauge("millpond_queue_tokens", "Tokens that wait.", label, of_each(lambda e: e.batcher.queued[1]))
        yield _gauge("millpond_queue_limit_tokens", "batching.max_queued_tokens.", (), [((), limit)])
        yield _histogram("millpond_batch_texts", "Texts of a pass.", label, of_each(lambda e: e.batcher.figures.rows))
        yield _histogram(
            "millpond_batch_tokens",
            "Tokens of a pass, padding included.",
            label,
            of_each(lambda e: e.batcher.figures.tokens),
        )
        yield _counter(
            "millpond_padding_tokens",
            "Tokens of passes that were padding.",
            label,
            of_each(lambda e: e.batcher.figures.padding),
        )
        yield _histogram(
            "millpond_forward_seconds",
            "The encoder's part of a pass.",
            label,
            of_each(lambda e: e.batcher.figures.forward),
        )
        yield _histogram(
            "millpond_pooling_seconds",
            "Pooling and what follows it, of a pass.",
            label,
            of_each(lambda e: e.batcher.figures.pooling),
        )
        fixed = [encoder for encoder in encoders if encoder.batcher.most_compiled]
        known = [((e.checkpoint.name, "known"), e.batcher.figures.known_shapes) for e in fixed]
        new = [((e.checkpoint.name, "new"), e.batcher.figures.new_shapes) for e in fixed]
        yield _counter(
            "millpond_shape_passes",
            "Passes whose shape was compiled before (known), and those that had to compile it (new).",
            ("encoder", "shape"),
            known + new,
        )
        compiled = [((e.checkpoint.name,), len(e.batcher.compiled)) for e in fixed]
        yield _gauge("millpond_shapes_compiled", "Shapes compiled so far.", label, compiled)
        shapes = [((e.checkpoint.name,), e.batcher.most_compiled) for e in fixed]
        yield _gauge("millpond_shapes", "Shapes that passes may have.", label, shapes)

    def _of_models(self) -> Iterator[Metric]:
        models = [*self._served.models]
        told = [
            (
                (
                    *(name, model.encoder.checkpoint.name, model.recipe.pooler.spec, model.fingerprint),
                    *(model.encoder.runtime.backend, model.encoder.runtime.precision),
                ),
                1,
            )
            for name, model in models
        ]
        labels = ("model", "encoder", "pooling", "fingerprint", "backend", "precision")
        yield _gauge("millpond_model_info", "A served model.", labels, told)
        made = [((name, pooling), n) for name, model in models for pooling, n in [*model.made.items()]]
        yield _counter("millpond_vectors", "Vectors made.", ("model", "pooling"), made)
        unknown = [((name,), model.unknown.count) for name, model in models]
        yield _counter("millpond_unknown_tokens", "Tokens that a model does not know.", ("model",), unknown)

    def _of_rerankers(self) -> Iterator[Metric]:
        rerankers = [*self._served.rerankers]
        told = [(_runs_on(name, each.encoder), 1) for name, each in rerankers]
        labels = ("reranker", "encoder", "backend", "precision")
        yield _gauge("millpond_reranker_info", "A served reranker.", labels, told)
        scored = [((name,), each.scored) for name, each in rerankers]
        yield _counter("millpond_scored", "Texts and pairs of texts scored.", ("reranker",), scored)

    def _of_sparse(self) -> Iterator[Metric]:
        models = [*self._served.sparse]
        told = [(_runs_on(name, each.encoder), 1) for name, each in models]
        labels = ("sparse", "encoder", "backend", "precision")
        yield _gauge("millpond_sparse_info", "A served sparse model.", labels, told)
        made = [((name,), each.made) for name, each in models]
        yield _counter("millpond_sparse_vectors", "Sparse vectors made.", ("sparse",), made)
        active = [((name,), each.active) for name, each in models]
        yield _counter("millpond_sparse_weights", "Weights above 0 in sparse vectors.", ("sparse",), active)

    def _of_collections(self) -> Iterator[Metric]:
        collections = self._served.collections
        yield _histogram("millpond_store_commit_seconds", "A commit to disk.", (), [((), collections.commits)])
        with suppress(ServiceError):  # what keeps them cannot be reached, which `/ready` tells
            yield from metrics_of_collections(collections.all())


def metrics_of_collections(every: Sequence[Collection]) -> Iterator[Metric]:
    """Yield what collections say of themselves."""
    yield _gauge("millpond_collections", "Collections.", (), [((), len(every))])
    rows = sorted(_read(every), key=lambda row: -row.vectors)[:MOST_COLLECTIONS]
    for name, (text, value) in _OF_COLLECTION.items():
        told = [((row.name,), found) for row in rows if (found := value(row)) is not None]
        yield _gauge(f"millpond_{name}", text, ("collection",), told)


class _Row:
    """What a collection says of itself at one moment."""

    def __init__(self, collection: Collection) -> None:
        self.name = collection.name
        self.documents = collection.count()
        self.vectors = collection.chunks()
        self.memory = collection.memory_bytes()
        self.stored = collection.stored_bytes()
        self.state: IndexState = collection.index_state()


def _read(collections: Iterable[Collection]) -> Iterator[_Row]:
    for collection in collections:
        with suppress(ServiceError):  # dropped meanwhile, or the store fails, which `/ready` tells
            yield _Row(collection)


def _saved(row: _Row) -> float | None:
    return None if row.state.saved is None else datetime.fromisoformat(row.state.saved).timestamp()


_OF_COLLECTION: Final[Mapping[str, tuple[str, Callable[[_Row], float | None]]]] = {
    "collection_documents": ("Documents.", lambda row: row.documents),
    "collection_vectors": ("Vectors.", lambda row: row.vectors),
    "collection_stored_bytes": ("Texts, metadata and vectors on disk.", lambda row: row.stored),
    "index_bytes": ("Memory of the index.", lambda row: row.memory),
    "index_tail_vectors": ("Vectors beside a built index, compared one by one.", lambda row: row.state.tail),
    "index_deleted_vectors": ("Vectors in a built index that are gone.", lambda row: row.state.deleted),
    "index_recall": ("Recall of a built index, as measured on a sample.", lambda row: row.state.recall),
    "index_recall_target": ("The recall asked for.", lambda row: row.state.target),
    "index_building": ("How much of a build is done that runs or waits.", lambda row: row.state.building),
    "index_snapshot_timestamp_seconds": ("When the snapshot of a built index was written.", _saved),
}
_TEI_PHASES: Final = {"tokenize": "tokenization", "queue": "queue", "inference": "inference"}


def _reason(status: int) -> str:
    """Return what text-embeddings-inference calls the reason of a failure."""
    if status == LEFT:
        return "dropped"
    if status in (429, 503):
        return "overloaded"
    return "validation" if status < 500 else "inference"


def _runs_on(name: str, encoder: Encoder) -> tuple[str, ...]:
    """Return the labels of a model that are told of its encoder."""
    return name, encoder.checkpoint.name, encoder.runtime.backend, encoder.runtime.precision


def _gauge(name: str, text: str, labels: tuple[str, ...], values: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
    return _filled(GaugeMetricFamily(name, text, labels=labels), values)


def _counter(
    name: str, text: str, labels: tuple[str, ...], values: Iterable[tuple[tuple[str, ...], float]]
) -> Metric:
    """Return a counter, whose samples are called `name_total`."""
    return _filled(CounterMetricFamily(name, text, labels=labels), values)


def _plain(name: str, text: str, labels: tuple[str, ...], values: Mapping[str, float]) -> Metric:
    """Return a counter without the suffix `_total`, which the format has no type for."""
    told = [((of,) if labels else (), value) for of, value in [*values.items()]]
    return _filled(UnknownMetricFamily(name, text, labels=labels), told)


def _filled(
    family: GaugeMetricFamily | CounterMetricFamily | UnknownMetricFamily,
    values: Iterable[tuple[tuple[str, ...], float]],
) -> Metric:
    for of, value in values:
        family.add_metric(of, value)
    return family


def _histogram(
    name: str, text: str, labels: tuple[str, ...], values: Iterable[tuple[tuple[str, ...], Histogram]]
) -> Metric:
    family = HistogramMetricFamily(name, text, labels=labels)
    for of, histogram in values:
        buckets = [(_bound(bound), number) for bound, number in histogram.cumulative()]
        family.add_metric(of, buckets, histogram.sum)
    return family


def _bound(value: float) -> str:
    return "+Inf" if value == inf else str(value)
