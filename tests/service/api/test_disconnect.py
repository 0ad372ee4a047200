"""A client that goes away takes with it what was not computed yet, unless it was to be stored."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from service.api import create_app
from service.config import Config
from service.deployment import Deployment, open_deployment

TEXTS = [
    f"The wheel of mill number {number} turns when water flows over it, slowly at first." for number in range(4000)
]
LEAST_TOKENS = 15 * len(TEXTS)


class InProcess:
    """A service behind a real port, in a thread of this process, so that its queue can be looked at."""

    def __init__(self, service: Deployment) -> None:
        self.service = service
        self.batcher = service.models.get().encoder.batcher
        self.server = uvicorn.Server(uvicorn.Config(create_app(service), port=0, log_level="warning"))
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        until(lambda: self.server.started)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=300)

    def close(self) -> None:
        self.http.close()
        self.server.should_exit = True
        self.thread.join()

    def leave_during(self, path: str, body: dict[str, Any]) -> int:
        """Ask, go away once a pass has run, wait until the service is done with it; gives the passes it has cost."""
        content = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nhost: here\r\ncontent-type: application/json\r\ncontent-length: {len(content)}"
        )
        before = self.batcher.passes
        with socket.create_connection(("127.0.0.1", self.port)) as client:
            client.sendall(head.encode() + b"\r\n\r\n" + content)
            until(lambda: self.batcher.passes > before)
        until(lambda: not self.server.server_state.tasks)
        return self.batcher.passes - before


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def running(store: Path) -> Iterator[InProcess]:
    models = {"default": {"encoder": "bundled/all-MiniLM-L6-v2"}}
    service = open_deployment(Config.model_validate({"models": models, "store": {"path": str(store)}}))
    found = InProcess(service)
    try:
        yield found
    finally:
        found.close()


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    with running(tmp_path_factory.mktemp("store")) as found:
        assert found.http.put("/collections/default").status_code == 201
        yield found


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/embed", {"inputs": TEXTS}),
        ("/v1/embeddings", {"model": "default", "input": TEXTS}),
        ("/embed_spans", {"inputs": TEXTS, "spans": {"tokens": 64}}),
        ("/project", {"texts": [f"{one} {other}" for one, other in zip(TEXTS[::2], TEXTS[1::2], strict=True)]}),
        ("/search", {"queries": TEXTS}),
        ("/collections/default/search", {"queries": TEXTS}),
    ],
)
def test_texts_that_have_not_run_are_dropped(here: InProcess, path: str, body: dict[str, Any]) -> None:
    passes = here.leave_during(path, body)
    assert passes < LEAST_TOKENS / here.service.config.batching.max_batch_tokens
    assert here.http.post("/embed", json={"inputs": "after"}).status_code == 200


@pytest.mark.parametrize("path", ["/embed", "/search", "/collections/default/documents"])
def test_half_a_body_is_no_bug(here: InProcess, path: str, caplog: pytest.LogCaptureFixture) -> None:
    head = f"POST {path} HTTP/1.1\r\nhost: here\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", here.port)) as client:
        client.sendall(head.encode() + b'{"inputs": ')
        until(lambda: bool(here.server.server_state.tasks))
    until(lambda: not here.server.server_state.tasks)
    assert not caplog.records
    assert here.http.post("/embed", json={"inputs": "after"}).status_code == 200


@pytest.mark.slow
def test_an_upsert_goes_on_to_its_end(here: InProcess) -> None:
    documents = [{"id": str(number), "text": text} for number, text in enumerate(TEXTS[:300])]
    here.leave_during("/collections/default/documents", {"documents": documents})
    assert here.http.get("/collections/default").json()["count"] == len(documents)


@pytest.mark.slow
def test_a_client_that_stays_is_answered_over_the_same_connection(here: InProcess) -> None:
    """Also where its request took long enough to be watched."""
    for _ in range(2):
        answer = here.http.post("/embed", json={"inputs": TEXTS[:300]})
        assert answer.status_code == 200 and len(answer.json()) == 300
        assert here.http.post("/embed", json={"inputs": "short"}).status_code == 200
