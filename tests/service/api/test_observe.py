"""Request ids, the headers that tell what a request took, and its log line."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from service.api.access_log import log_access
from service.api.middleware.observe import Observe
from service.api.routing import Routes
from service.observation import Observed, observed
from tests.support.servers import ROOT, Server

TIMES = ("x-compute-time", "x-total-time", "x-tokenization-time", "x-queue-time", "x-inference-time")


@pytest.mark.parametrize("given", ["a", "7f3c-AB.9~/:", "x" * 128])
def test_the_id_of_a_request_is_given_back(http: httpx.Client, given: str) -> None:
    for answer in (
        http.get("/health", headers={"x-request-id": given}),
        http.get("/nowhere", headers={"X-Request-Id": given}),
        http.post("/embed", json={"inputs": "a"}, headers={"x-request-id": given}),
        http.post("/v1/embeddings", content=b"{", headers={"x-request-id": given}),
    ):
        assert answer.headers.get_list("x-request-id") == [given]


@pytest.mark.parametrize("given", [b"", b"x" * 129, b"two words", b"tab\tbed", b"caf\xe9"])
def test_an_id_that_cannot_be_logged_is_replaced(http: httpx.Client, given: bytes) -> None:
    headers: Any = {b"x-request-id": given}
    ids = [http.get("/health", headers=headers).headers["x-request-id"] for _ in range(2)]
    assert len(set(ids)) == 2 and all(len(each) == 24 and each.isalnum() for each in ids)


def test_the_headers_of_text_embeddings_inference(http: httpx.Client) -> None:
    answer = http.post("/embed", json={"inputs": ["A man is playing a harp.", "caf\u00e9"]})
    assert answer.headers["x-compute-type"] == "cpu"
    assert answer.headers["x-compute-characters"] == "28"
    assert int(answer.headers["x-compute-tokens"]) == 9 + 3
    total, *parts = [int(answer.headers[name]) for name in TIMES[1:]]
    assert sum(parts) <= total == int(answer.headers["x-compute-time"])
    for path, body in {
        "/embed_all": {"inputs": "a"},
        "/embed_spans": {"inputs": "a", "spans": [[0, 1]]},
        "/v1/embeddings": {"input": "a", "model": "mean"},
    }.items():
        assert http.post(path, json=body).headers["x-compute-tokens"] == "3"


def test_other_answers_do_not_have_them(http: httpx.Client) -> None:
    for answer in (http.get("/info"), http.post("/embed", json={"inputs": " "}), http.post("/search", json={})):
        assert "x-request-id" in answer.headers
        assert not [name for name in answer.headers if name.startswith(("x-compute", "x-total", "x-inference"))]


async def nothing_more() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


class Caller:
    """Sends requests to middleware around an application, and keeps what was observed."""

    def __init__(self) -> None:
        self.observed: list[Observed] = []

    async def __call__(self, app: Any, headers: list[tuple[bytes, bytes]] | None = None) -> None:
        async def ignore(_: Message) -> None: ...

        scope: Scope = {"type": "http", "method": "GET", "path": "/", "headers": headers or []}
        await Observe(app, Routes(()), "cpu", [self.observed.append])(scope, nothing_more, ignore)


def test_requests_that_end_otherwise() -> None:
    caller = Caller()

    async def silent(scope: Scope, receive: Receive, send: Send) -> None: ...

    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError

    async def cancelled(scope: Scope, receive: Receive, send: Send) -> None:
        raise asyncio.CancelledError

    async def ask() -> None:
        await caller(silent)
        with pytest.raises(RuntimeError):
            await caller(broken)
        with pytest.raises(asyncio.CancelledError):
            await caller(cancelled)

    asyncio.run(ask())
    assert [request.status for request in caller.observed] == [499, 500, 499]
    assert {request.route for request in caller.observed} == {"unknown"}


def test_what_goes_on_after_a_request_is_no_part_of_it() -> None:
    caller = Caller()
    seen: list[Observed | None] = []

    async def begins_something(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(observed())

        async def later() -> None:
            await ended.wait()
            seen.append(observed())

        tasks.append(asyncio.create_task(later()))

    async def ask() -> None:
        await caller(begins_something)
        ended.set()
        await tasks[0]

    ended, tasks = asyncio.Event(), list[asyncio.Task[None]]()
    asyncio.run(ask())
    assert seen == [caller.observed[0], None]


def test_the_line_of_a_request(caplog: pytest.LogCaptureFixture) -> None:
    request = Observed("r-1", "POST", [(b"authorization", b"Bearer secret")])
    request.route, request.status, request.texts, request.tokens = "/embed", 200, 2, 12
    request.ended = request.begun + 0.0042
    probe = Observed("r-2", "GET")
    probe.route, probe.status, probe.ended = "/ready", 200, probe.begun
    with caplog.at_level(logging.INFO, "service.access"):
        log_access(request)
        log_access(probe)
        probe.status = 503
        log_access(probe)
    assert caplog.messages == ["POST /embed 200 in 4.2 ms, 12 tokens", "GET /ready 503 in 0.0 ms"]
    assert vars(caplog.records[0])["fields"] == {
        "method": "POST",
        "route": "/embed",
        "status": 200,
        "duration_ms": 4.2,
        "texts": 2,
        "tokens": 12,
    }


def ask_secretly(server: Server) -> None:
    key = {"authorization": "Bearer sesame-key", "x-request-id": "r-9"}
    server.http.post("/embed", json={"inputs": ["sesame text", "sesame"]}, headers=key)
    server.http.post("/embed?q=sesame", json={"inputs": "sesame", "model": "none"}, headers=key)
    server.http.put("/collections/sesame", headers=key)
    server.http.get("/sesame%0Aforged", headers=key)
    server.http.get("/ready")


LOGGED = {"LOG_FORMAT": "json", "LOG_LEVEL": "debug", "ACCESS_LOG": "true"}


@pytest.mark.slow
def test_a_service_that_logs_json_at_debug_level(tmp_path: Path) -> None:
    env = {f"MILLPOND_SERVER__{key}": value for key, value in LOGGED.items()}
    with Server(ROOT / "configs" / "mean.yaml", tmp_path / "store", env) as server:
        ask_secretly(server)
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    assert "sesame" not in server.log.read_text()
    assert any(line["message"].startswith("Millpond serves at") for line in lines)
    found = [line for line in lines if line.get("request_id") == "r-9"]
    assert [(line["method"], line["route"], line["status"]) for line in found] == [
        ("POST", "/embed", 200),
        ("POST", "/embed", 404),
        ("PUT", "/collections/{name}", 201),
        ("GET", "unknown", 404),
    ]
    assert found[0]["tokens"] > found[0]["texts"] == 2 and found[0]["duration_ms"] > 0
    assert any(line.get("route") == "/ready" and line["level"] == "debug" for line in lines)


@pytest.mark.slow
def test_a_service_that_logs_no_requests(tmp_path: Path) -> None:
    env = {"MILLPOND_SERVER__ACCESS_LOG": "false"}
    with Server(ROOT / "configs" / "mean.yaml", tmp_path / "store", env) as server:
        ask_secretly(server)
    log = server.log.read_text()
    assert "Millpond serves at" in log and "/embed" not in log and "sesame" not in log
