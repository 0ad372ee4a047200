"""Traces for OpenTelemetry, made of what was observed of a request once it has ended.

Importing this needs the extra `otel`; see `tracing`, which does so where traces are asked for.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Final

from opentelemetry import propagate
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context

from service import __version__
from service.errors import ConfigError
from service.observation import Observed

_MOST_PHASES: Final = 64
"""Phases of one request that have spans; a request of thousands of texts has hundreds of passes."""
_INFERENCE: Final = "inference"
_OF_INFERENCE: Final = frozenset({"pass", "pooling"})
_EXPORTERS: Final = "opentelemetry_traces_exporter"
"""The entry point group in which packages offer exporters."""


class Traces:
    """Gives each request a span, below the one that its `traceparent` names, and each of its phases one below that.

    Args:
        provider: where the spans go.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("millpond", __version__)

    def __call__(self, request: Observed) -> None:
        """Make the spans of a request that has ended."""
        epoch = time.time_ns() - time.perf_counter_ns()

        def at(moment: float) -> int:
            return epoch + round(moment * 1e9)

        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers}
        span = self._tracer.start_span(
            f"{request.method} {request.route}",
            propagate.extract(headers),
            SpanKind.SERVER,
            {
                "http.request.method": request.method,
                "http.route": request.route,
                "http.response.status_code": request.status,
                "millpond.request_id": request.id,
                "millpond.texts": request.texts,
                "millpond.tokens": request.tokens,
            },
            start_time=at(request.begun),
        )
        if request.status >= 500:
            span.set_status(StatusCode.ERROR)
        outer = inner = set_span_in_context(span)
        for phase in request.phases[:_MOST_PHASES] if span.is_recording() else ():
            part = self._tracer.start_span(
                phase.name,
                inner if phase.name in _OF_INFERENCE else outer,
                attributes={f"millpond.{name}": size for name, size in phase.attributes.items()},
                start_time=at(phase.begun),
            )
            part.end(at(phase.ended))
            if phase.name == _INFERENCE:
                inner = set_span_in_context(part)
        span.end(at(request.begun + request.duration))


def provider_from(variables: Mapping[str, str]) -> TracerProvider:
    """Return what sends spans as OpenTelemetry's environment variables say; the SDK itself reads all others.

    Raises:
        ConfigError: no package that is installed offers the exporter.
    """
    resource = Resource.create({SERVICE_VERSION: __version__})
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: "millpond"}))
    provider = TracerProvider(resource=resource)
    for asked in variables.get("OTEL_TRACES_EXPORTER", "otlp").split(","):
        provider.add_span_processor(BatchSpanProcessor(_exporter(asked.strip(), variables)()))
    return provider


def _exporter(asked: str, variables: Mapping[str, str]) -> type:
    name = asked
    if asked == "otlp":
        common = variables.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        protocol = variables.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", common)
        name = "otlp_proto_grpc" if protocol == "grpc" else "otlp_proto_http"
    for offered in entry_points(group=_EXPORTERS, name=name):
        found: type = offered.load()
        return found
    known = ", ".join(sorted(entry_points(group=_EXPORTERS).names))
    raise ConfigError(
        f"environment variable OTEL_TRACES_EXPORTER: no installed package offers the exporter {name!r}. There are "
        f"{known}. Install what offers it, or set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf."
    )
