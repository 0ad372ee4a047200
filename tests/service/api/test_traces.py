"""Traces: the spans of requests, and how they are sent."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.api import create_app
from service.api.tracing import traces
from service.config import Config
from service.deployment import open_deployment
from service.errors import ConfigError
from tests.support.servers import ROOT, Server

pytest.importorskip("opentelemetry.sdk", reason="the extra 'otel' is not installed")

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from service.api.traces import Traces

EXPORTED = ROOT / "tests" / "fixtures" / "v0_1" / "exported"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = PARENT[:-1] + "0"


@pytest.fixture(scope="module")
def spans(tmp_path_factory: pytest.TempPathFactory) -> list[ReadableSpan]:
    """The spans of some requests to a service that keeps them in memory."""
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    config = {
        "models": {"default": {"encoder": str(EXPORTED)}},
        "runtime": {"backend": "torch", "precision": "fp32"},
        "store": {"path": tmp_path_factory.mktemp("traces")},
    }

    async def ask(app: Any) -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as http:
            document = {"id": "secret-id", "text": "secret text"}
            for headers, method, path, body in (
                ({"traceparent": PARENT}, "POST", "/embed", {"inputs": ["secret text", "a"]}),
                ({}, "PUT", "/collections/secret-name", None),
                ({}, "POST", "/collections/secret-name/documents", {"documents": [document]}),
                ({}, "POST", "/collections/secret-name/search", {"query": "secret"}),
                ({"traceparent": UNSAMPLED}, "POST", "/embed", {"inputs": "a"}),
            ):
                (await http.request(method, path, json=body, headers=headers)).raise_for_status()

    with open_deployment(Config.model_validate(config)) as served:
        asyncio.run(ask(create_app(served, Traces(provider))))
    return list(kept.get_finished_spans())


def tree(spans: list[ReadableSpan], name: str) -> dict[str, Any]:
    """The spans below the one of a name, by name, in the order in which they began."""
    (root,) = (span for span in spans if span.name == name)

    def below(span: ReadableSpan) -> dict[str, Any]:
        assert span.context is not None
        inner = [each for each in spans if each.parent and each.parent.span_id == span.context.span_id]
        for each in inner:
            assert span.start_time and each.start_time and each.end_time and span.end_time
            assert span.start_time <= each.start_time <= each.end_time <= span.end_time
        return {each.name: below(each) for each in sorted(inner, key=lambda each: each.start_time or 0)}

    return below(root)


INFERENCE = {"pass": {}, "pooling": {}}


def test_the_spans_of_requests(spans: list[ReadableSpan]) -> None:
    embedding = {"tokenize": {}, "queue": {}, "inference": INFERENCE}
    assert tree(spans, "POST /embed") == embedding
    assert tree(spans, "PUT /collections/{name}") == {"store": {}}
    assert tree(spans, "POST /collections/{name}/documents") == {**embedding, "store": {}}
    assert tree(spans, "POST /collections/{name}/search") == {**embedding, "search": {}}


def test_a_span_says_what_was_asked_and_nothing_of_its_content(spans: list[ReadableSpan]) -> None:
    (span,) = (span for span in spans if span.name == "POST /embed")
    assert span.context is not None and span.parent is not None and span.attributes is not None
    assert f"{span.context.trace_id:032x}" == PARENT.split("-")[1]
    assert f"{span.parent.span_id:016x}" == PARENT.split("-")[2]
    told = {name: value for name, value in span.attributes.items() if name != "millpond.request_id"}
    assert told == {
        "http.request.method": "POST",
        "http.route": "/embed",
        "http.response.status_code": 200,
        "millpond.texts": 2,
        "millpond.tokens": told["millpond.tokens"],
    }
    passes = [each for each in spans if each.name == "pass" and each.context.trace_id == span.context.trace_id]
    assert sum(int(str((each.attributes or {})["millpond.texts"])) for each in passes) == 2
    assert not any("secret" in each.to_json() for each in spans)


def test_a_caller_that_samples_nothing_is_followed(spans: list[ReadableSpan]) -> None:
    assert sum(span.name == "POST /embed" for span in spans) == 1


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"OTEL_SERVICE_NAME": "x"},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
        {"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "otlp"},
    ],
)
def test_nothing_is_traced_unless_it_is_asked_for(variables: dict[str, str]) -> None:
    assert traces(variables) == []


def test_an_exporter_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match=r"OTEL_TRACES_EXPORTER.*'jaegr'.*otlp_proto_http"):
        traces({"OTEL_TRACES_EXPORTER": "jaegr"})


def test_traces_that_are_asked_for_without_the_extra(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delitem(sys.modules, "service.api.traces")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with caplog.at_level(logging.WARNING):
        assert traces({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}) == []
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in caplog.text and "millpond[otel]" in caplog.text


class Collector(ThreadingHTTPServer):
    """Receives traces as a collector does, by OTLP over HTTP."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        super().__init__(("127.0.0.1", 0), Receiver)


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Collector) and self.path == "/v1/traces"
        self.server.received.append(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.slow
def test_a_service_sends_its_spans_to_a_collector(collector: Collector, tmp_path: Path) -> None:
    """Those that are left are sent as it ends."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
    }
    with Server(ROOT / "configs" / "mean.yaml", tmp_path / "store", env) as server:
        server.http.post("/embed", json={"inputs": "a"}, headers={"traceparent": PARENT}).raise_for_status()
    assert collector.received
    found: dict[str, list[str]] = {}
    for body in collector.received:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            told = {each.key: each.value.string_value for each in resource.resource.attributes}
            assert told["service.name"] == "millpond" and told["deployment.environment.name"] == "test"
            for scope in resource.scope_spans:
                for span in scope.spans:
                    found.setdefault(span.trace_id.hex(), []).append(span.name)
    assert sorted(found[PARENT.split("-")[1]]) == sorted(
        ["POST /embed", "tokenize", "queue", "inference", "pass", "pooling"]
    )
