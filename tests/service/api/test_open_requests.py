"""How many requests are under way, when they have to be answered, and what becomes of them when the service stops."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from starlette.types import Message

from service.api import create_app
from service.api.middleware.open_requests import OpenRequests
from service.config import Config
from service.deployment import Deployment, open_deployment
from tests.support.problems import openai_problem, problem
from tests.support.servers import ROOT

EXPORTED = ROOT / "tests" / "fixtures" / "v0_1" / "exported"
JSON = (b"content-type", b"application/json")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    values = {
        "models": {"default": {"encoder": str(EXPORTED)}},
        "runtime": {"backend": "torch", "precision": "fp32", "threads": 1},
        "store": {"path": str(tmp_path_factory.mktemp("open") / "store")},
    }
    with open_deployment(Config.model_validate(values)) as served:
        yield served


@contextmanager
def limits(served: Deployment, section: str = "server", **keys: Any) -> Iterator[None]:
    """The deployment with other keys of a section."""
    before = served.config
    served.reload(before.model_copy(update={section: getattr(before, section).model_copy(update=keys)}))
    try:
        yield
    finally:
        served.reload(before)


@contextmanager
def busy(served: Deployment) -> Iterator[None]:
    """The encoder's only stream and its express lane, kept at work."""
    batcher = served.models.get().encoder.batcher
    entered, opened = threading.Semaphore(0), threading.Event()

    def hold(states: Any, mask: Any, ids: Any) -> list[None]:
        entered.release()
        assert opened.wait(20)
        return [None] * len(mask)

    large = batcher.submit([np.full(20, 5)] * 10, hold)
    assert entered.acquire(timeout=20)
    quick = batcher.submit([np.full(20, 5)], hold)
    assert entered.acquire(timeout=20)
    try:
        yield
    finally:
        opened.set()
        large.result(20)
        quick.result(20)


def ask(served: Deployment, rest: Callable[[FastAPI, httpx.AsyncClient], Awaitable[None]]) -> None:
    app = create_app(served)

    async def run() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as http:
            await rest(app, http)

    asyncio.run(run())


class HalfSent:
    """A request whose body does not come whole."""

    def __init__(self, app: FastAPI, path: str = "/embed", *headers: tuple[bytes, bytes]) -> None:
        self.read = asyncio.Event()
        """Set when more of the body is waited for."""
        self.status, self.headers, self.body = 0, httpx.Headers(), b""
        self._parts: list[Message] = [{"type": "http.request", "body": b"{", "more_body": True}]
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "http_version": "1.1",
            "server": ("here", 80),
            "client": ("there", 1),
            "headers": [(b"host", b"here"), JSON, *headers],
        }
        self.task = asyncio.create_task(app(scope, self._receive, self._send))

    async def _receive(self) -> Message:
        if self._parts:
            return self._parts.pop()
        self.read.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def _send(self, message: Message) -> None:
        self.status = message.get("status", self.status)
        self.headers = httpx.Headers(message.get("headers", self.headers.raw))
        self.body += message.get("body", b"")

    async def answer(self, path: str = "/embed") -> httpx.Response:
        await self.task
        request = httpx.Request("POST", f"http://here{path}")
        return httpx.Response(self.status, headers=self.headers, content=self.body, request=request)


def test_more_requests_than_may_be_under_way_are_refused_before_their_body_is_read(served: Deployment) -> None:
    async def run(app: FastAPI, http: httpx.AsyncClient) -> None:
        waiting = [HalfSent(app) for _ in range(2)]
        for each in waiting:
            await each.read.wait()
        for path, check in (("/embed", problem), ("/v1/embeddings", openai_problem), ("/search", problem)):
            one = HalfSent(app, path)
            answer = await one.answer(path)
            check(answer, 503, "2 requests are under way", "server.max_requests is 2", "again in 1 s")
            assert answer.headers["retry-after"] == "1" and not one.read.is_set()
        assert [(await http.get(path)).status_code for path in ("/health", "/ready", "/info")] == [200, 200, 503]
        waiting[0].task.cancel()
        await asyncio.wait([waiting[0].task])
        assert (await http.post("/embed", json={"inputs": "a"})).status_code == 200
        waiting[1].task.cancel()
        await asyncio.wait([waiting[1].task])

    with limits(served, max_requests=2):
        ask(served, run)


def test_texts_for_a_full_queue_are_refused_before_they_are_read(served: Deployment) -> None:
    large, small = ((b"content-length", str(size).encode()) for size in (5_000, 500))

    async def run(app: FastAPI, http: httpx.AsyncClient) -> None:
        async def read(path: str, *headers: tuple[bytes, bytes]) -> None:
            one = HalfSent(app, path, *headers)
            await one.read.wait()
            one.task.cancel()
            await asyncio.wait([one.task])

        with busy(served), limits(served, "batching", max_queued_tokens=220):
            await read("/embed", large)  # nobody was refused so far
            problem(await http.post("/embed", json={"inputs": ["a text of words"] * 60}), 503, "the queue is full")
            for path, check in (("/embed", problem), ("/v1/embeddings", openai_problem), ("/similarity", problem)):
                one = HalfSent(app, path, large)
                answer = await one.answer(path)
                check(answer, 503, "the queue is full", "batching.max_queued_tokens is 220", "again in 1 s")
                assert answer.headers["retry-after"] == "1" and not one.read.is_set()
            await read("/embed", small)  # it may be quick
            await read("/embed")  # its size is not known
            for path in ("/tokenize", "/search"):  # which texts wait for no encoder, and which may have a vector
                await read(path, large)
            metrics = (await http.get("/metrics")).text
            assert 'millpond_http_requests_total{method="POST",route="/v1/embeddings",status="503"} 1.0' in metrics
        await read("/embed", large)

    ask(served, run)


@pytest.mark.parametrize("path", ["/embed", "/search", "/collections/default/documents"])
@pytest.mark.parametrize("by_header", [True, False])
def test_a_body_that_does_not_come_in_time(served: Deployment, path: str, by_header: bool) -> None:
    async def run(app: FastAPI, http: httpx.AsyncClient) -> None:
        one = HalfSent(app, path, *([(b"x-request-timeout", b"0.05")] if by_header else []))
        assert problem(await one.answer(path), 504, "within its 0.05 s")["code"] == "deadline_exceeded"
        assert one.read.is_set() and not len(app.state.requests)

    with limits(served, request_timeout=60.0 if by_header else 0.05):
        ask(served, run)


def test_a_deadline_holds_in_the_queue_and_what_is_late_is_not_computed(served: Deployment) -> None:
    async def run(_: FastAPI, http: httpx.AsyncClient) -> None:
        await http.put("/collections/default")
        batcher = served.models.get().encoder.batcher
        documents = {"documents": [{"id": "late", "text": "a"}]}
        bodies = {
            "/embed": {"inputs": "a"},
            "/v1/embeddings": {"input": ["a"] * 40, "model": "default"},
            "/embed_all": {"inputs": "a"},
            "/embed_spans": {"inputs": "a b", "spans": [[0, 1]]},
            "/search": {"query": "a"},
            "/collections/default/documents": documents,
        }
        before = batcher.passes
        with busy(served):
            for path, body in bodies.items():
                answer = await http.post(path, json=body, headers={"x-request-timeout": "0.05"})
                check = openai_problem if path.startswith("/v1/") else problem
                assert check(answer, 504, "X-Request-Timeout", "more time")["code"] == "deadline_exceeded"
        for path, body in bodies.items():
            if body is not documents:
                assert (await http.post(path, json=body, headers={"x-request-timeout": "60"})).status_code == 200
        assert batcher.passes - before == 2 + len(bodies) - 1
        assert (await http.get("/collections/default/documents/late")).status_code == 404

    ask(served, run)


@pytest.mark.parametrize("given", ["", "0", "-1", "soon", "nan", "inf", "1e999", "1 s", "\u00b2"])
def test_a_timeout_that_is_no_number_of_seconds(served: Deployment, given: str) -> None:
    async def run(_: FastAPI, http: httpx.AsyncClient) -> None:
        headers = {"x-request-timeout": given.encode("latin-1")}
        found = problem(await http.post("/embed", json={"inputs": "a"}, headers=headers), 422, "number of seconds")
        assert found["place"] == {"field": "X-Request-Timeout"}

    ask(served, run)


def test_a_reindex_outlives_the_deadline_of_who_asked_for_it(served: Deployment, tmp_path: Path) -> None:
    async def run(_: FastAPI, http: httpx.AsyncClient) -> None:
        await http.put("/collections/anew")
        await http.post("/collections/anew/documents", json={"documents": [{"id": "a", "text": "a"}]})
        with busy(served):
            headers = {"x-request-timeout": "0.2"}
            begun = await http.post("/collections/anew/reindex", json={"pooling": "cls"}, headers=headers)
            assert begun.json()["state"] == "running"
            await asyncio.sleep(0.3)  # beyond the deadline
        while (state := (await http.get("/collections/anew/reindex")).json())["state"] == "running":
            await asyncio.sleep(0.01)
        assert state["state"] == "complete", state

    ask(served, run)


def test_a_service_that_drains_answers_what_is_under_way_and_takes_no_more(served: Deployment) -> None:
    async def run(app: FastAPI, http: httpx.AsyncClient) -> None:
        requests: OpenRequests = app.state.requests
        half = HalfSent(app)
        await half.read.wait()
        with busy(served):
            under_way = asyncio.create_task(http.post("/embed", json={"inputs": "a"}))
            while len(requests) < 2:
                await asyncio.sleep(0)
            requests.drain()
            problem(await http.get("/ready"), 503, "stopping")
            assert (await http.get("/health")).status_code == 200
            refused = await http.post("/embed", json={"inputs": "a"})
            problem(refused, 503, "stopping", "again")
            assert refused.headers["retry-after"] == "5" and refused.headers["connection"] == "close"
        answered = await under_way
        assert answered.status_code == 200 and answered.headers["connection"] == "close"
        requests.end()
        ended = await half.answer()
        problem(ended, 503, "stopping")
        assert ended.headers["connection"] == "close" and not len(requests)

    ask(served, run)


def test_what_is_cut_off_at_the_end_of_a_drain_is_told_so(served: Deployment) -> None:
    async def run(app: FastAPI, _: httpx.AsyncClient) -> None:
        one = HalfSent(app)
        await one.read.wait()
        app.state.requests.drain()
        one.task.cancel()
        problem(await one.answer(), 503, "stopping")

    ask(served, run)


def test_a_request_that_is_cancelled_by_others_is_not_answered(served: Deployment) -> None:
    async def run(app: FastAPI, _: httpx.AsyncClient) -> None:
        one = HalfSent(app)
        await one.read.wait()
        one.task.cancel()
        await asyncio.wait([one.task])
        assert one.task.cancelled() and not one.status and not len(app.state.requests)

    ask(served, run)
