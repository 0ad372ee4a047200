"""What holds for every route: how large a body may be, what an error looks like, and when a request is cancelled."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from service.api import create_app
from service.api.errors import speaks_openai
from service.api.middleware.disconnect import CancelOnDisconnect
from service.api.requests import ReadingRoute
from service.config import Config
from service.deployment import Deployment, open_deployment
from tests.support.problems import openai_problem, problem, well_formed
from tests.support.servers import ROOT, Server

JSON = {"content-type": "application/json"}
LIMIT = 65_536
EXPORTED = ROOT / "tests" / "fixtures" / "v0_1" / "exported"


@pytest.fixture(scope="module")
def taking_bodies(small: Server) -> list[tuple[str, str]]:
    """Method and path of every route that takes a body."""
    paths = small.http.get("/openapi.json").json()["paths"]
    found = [(verb, path) for path, verbs in paths.items() for verb, told in verbs.items() if "requestBody" in told]
    assert {("post", "/embed"), ("post", "/v1/embeddings"), ("put", "/collections/{name}")} < set(found)
    return found


def too_large(answer: httpx.Response) -> None:
    check = openai_problem if speaks_openai(answer.request.url.path) else problem
    check(answer, 413, "server.max_body_bytes", "send less")


def test_bodies_over_the_limit(small: Server, taking_bodies: list[tuple[str, str]]) -> None:
    body = b" " * (LIMIT + 1)

    def chunks() -> Iterator[bytes]:
        for start in range(0, len(body), 1000):
            yield body[start : start + 1000]

    for verb, path in taking_bodies:
        for content in (body, chunks()):
            too_large(small.http.request(verb, path.replace("{name}", "large"), content=content, headers=JSON))
    assert small.http.get("/collections").json() == {"collections": []}
    assert small.http.get("/ready").status_code == 200


@pytest.mark.parametrize("path", ["/embed", "/search"])
def test_a_body_declared_too_large_is_not_waited_for(small: Server, path: str) -> None:
    head = f"POST {path} HTTP/1.1\r\nhost: here\r\nconnection: close\r\ncontent-length: {LIMIT + 1}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", small.port), timeout=60) as client:
        client.sendall(head.encode())
        answer = client.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 413 ") and b"server.max_body_bytes" in answer


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_as_large_as_the_limit(small: Server, chunked: bool) -> None:
    body = b'{"inputs": "a"}'.ljust(LIMIT)
    content = iter([body[:7], body[7:40_000], body[40_000:]]) if chunked else body
    assert small.http.post("/embed", content=content, headers=JSON).status_code == 200


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", JSON),
        (b"{", JSON),
        (b"null", JSON),
        (b"[]", JSON),
        (b'{"model": NaN}', JSON),
        (b'{"model": "\\ud800"}', JSON),
        (b'{"model": "caf\xe9"}', JSON),
        (b'{"model": ' + b"[" * 101 + b"]" * 101 + b"}", JSON),
        (b"{}", {"content-type": "text/plain"}),
        (b"{}", {"content-type": "application/jsonx"}),
        (b"{}", {}),
        (b" " * (LIMIT + 1), JSON),
    ],
)
def test_lean_routes_answer_bad_bodies_as_others_do(small: Server, body: bytes, headers: dict[str, str]) -> None:
    lean = small.http.post("/embed", content=body, headers=headers)
    other = small.http.post("/search", content=body, headers=headers)
    well_formed(lean)
    assert lean.status_code == other.status_code
    assert lean.headers["content-type"] == other.headers["content-type"]
    assert lean.json() == other.json()


def test_lean_routes_answer_errors_of_the_service_as_others_do(small: Server) -> None:
    unknown = small.http.post("/embed", json={"inputs": "a", "model": "men"})
    assert unknown.json() == small.http.put("/collections/never", json={"model": "men"}).json()
    problem(unknown, 404, "'men'")


@pytest.mark.parametrize(("method", "path"), [("POST", "/embed"), ("POST", "/search"), ("GET", "/collections")])
def test_a_bug_is_logged_and_told(method: str, path: str, caplog: pytest.LogCaptureFixture) -> None:
    """Here of a deployment in which nothing works."""
    config = Config.model_validate({"models": {"default": {"encoder": str(EXPORTED)}}})
    app = create_app(cast(Deployment, SimpleNamespace(config=config)))
    bodies = {"/embed": {"inputs": "a"}, "/search": {"query": "a"}}

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as http:
            return await http.request(method, path, json=bodies.get(path))

    answer = asyncio.run(ask())
    assert problem(answer, 500, "bug in the service")["code"] == "internal_error"
    assert "namespace" not in answer.text
    (record,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert record.message == f"{method} {path} failed" and record.exc_info


def test_lean_routes_below_a_root_path(tmp_path: Path) -> None:
    config = Config.model_validate(
        {
            "models": {"default": {"encoder": str(EXPORTED)}},
            "runtime": {"backend": "torch", "precision": "fp32"},
            "store": {"path": str(tmp_path)},
        }
    )

    async def ask(served: Deployment) -> None:
        transport = httpx.ASGITransport(create_app(served), root_path="/behind")
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as http:
            direct, below = [await http.post(path, json={"inputs": "a"}) for path in ("/embed", "/behind/embed")]
            assert direct.status_code == below.status_code == 200
            assert direct.json() == below.json()
            problem(await http.post("/behind/embed", content=b"{", headers=JSON), 400, "character 1")

    with open_deployment(config) as served:
        asyncio.run(ask(served))


class Client:
    """A client that sends a body and disconnects once told to; `heard` is set when that is listened for."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.heard, self.leaves = asyncio.Event(), asyncio.Event()
        self._parts: list[Message] = [{"type": "http.request", "body": b"{}", "more_body": False}]

    async def receive(self) -> Message:
        if self._parts:
            return self._parts.pop()
        self.heard.set()
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)


def serve(client: Client, rest: Callable[[Send], Awaitable[None]]) -> asyncio.Task[Any]:
    """Start a request of a route that changes nothing: it reads the body, then does the rest."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await rest(send)

    async def endpoint() -> None: ...

    scope: Scope = {"type": "http", "route": ReadingRoute("/", endpoint)}
    return asyncio.ensure_future(CancelOnDisconnect(app)(scope, client.receive, client.send))


async def forever(_: Send) -> None:
    await asyncio.Event().wait()


def test_a_request_that_its_client_left_ends_without_a_response() -> None:
    async def run() -> None:
        client = Client()
        task = serve(client, forever)
        client.leaves.set()
        await task
        assert client.sent == [] and not task.cancelling()

    asyncio.run(run())


def test_others_can_cancel_a_request_that_its_client_left() -> None:
    """As a server does that is shut down meanwhile."""

    async def run() -> None:
        client = Client()
        task = serve(client, forever)
        await client.heard.wait()
        client.leaves.set()
        await asyncio.sleep(0)
        assert task.cancelling() == 1
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    asyncio.run(run())


def test_what_follows_a_response_is_not_cancelled() -> None:
    """Servers say that a client left also when its response is complete."""

    async def run() -> None:
        client = Client()
        done: list[bool] = []

        async def respond(send: Send) -> None:
            await client.heard.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            client.leaves.set()
            for _ in range(10):
                await asyncio.sleep(0)
            done.append(True)

        await serve(client, respond)
        assert done

    asyncio.run(run())
