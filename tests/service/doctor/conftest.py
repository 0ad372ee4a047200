"""Models to examine, and servers that make vectors in ways of their own, each on a real port."""

from __future__ import annotations

import asyncio
import json
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.doctor.endpoint import find
from service.doctor.examine import examine
from service.doctor.findings import Finding, Report, refused
from service.doctor.folder import opened
from service.doctor.identify import identify
from service.doctor.reference import here
from service.embedding.embedder import Embedder
from service.errors import CheckpointError
from tests.support import checkpoints

Answer = tuple[int, Any]
Vectors = Callable[[Sequence[str]], np.ndarray]


@pytest.fixture(scope="module", autouse=True)
def runtime() -> Iterator[None]:
    """PyTorch, which has nothing to convert first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MILLPOND_RUNTIME__BACKEND", "torch")
        yield


def doctor(folder: Path, texts: Sequence[str] | None = None) -> Report:
    """What `millpond doctor FOLDER` finds."""
    try:
        with opened(folder) as (embedder, unknown):
            return asyncio.run(examine(embedder, reference=here, model=str(folder), texts=texts, unknown=unknown))
    except CheckpointError as error:
        return refused(str(folder), str(error))


def doctor_of_served(folder: Path, **settings: Any) -> Report:
    """What `/doctor` finds, where a config overrides what the folder declares."""
    with checkpoints.served(folder, **settings) as models:
        return asyncio.run(examine(models.get(), reference=here))


def doctor_of_server(folder: Path, url: str, **arguments: Any) -> Report:
    """What `millpond doctor FOLDER --url URL` finds."""
    with opened(folder) as (embedder, _):
        return asked(embedder, url, **arguments)


def asked(embedder: Embedder, url: str, **arguments: Any) -> Report:
    """The same for a model that is loaded."""

    async def ask() -> Report:
        async with httpx.AsyncClient(timeout=30, trust_env=False) as http:
            endpoint = await find(http, url, model="the-model", **arguments)
            return await identify(embedder, endpoint, "the-model")

    return asyncio.run(ask())


def finding(report: Report, name: str) -> Finding:
    """The one finding of a name."""
    (found,) = [each for each in report.findings if each.name == name]
    return found


def findings(report: Report) -> dict[str, str]:
    """Severity by name."""
    return {each.name: each.severity for each in report.findings}


@contextmanager
def answering(respond: Callable[[str, str, Any, Any], Answer]) -> Iterator[str]:
    """A server whose answers `respond` gives, from method, path, headers and JSON body; gives its URL."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            size = int(self.headers.get("content-length", 0))
            asked = json.loads(self.rfile.read(size) or "{}")
            status, content = respond(self.command, self.path, self.headers, asked)
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = _answer

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def openai(vectors: Vectors, *, path: str = "/v1/embeddings", base64: bool = False) -> Callable[..., Answer]:
    """Answers in OpenAI's shape, the last vector first, and knows its one model's name."""

    def respond(method: str, asked: str, headers: Any, body: Any) -> Answer:
        if method == "GET" and asked == path.replace("embeddings", "models"):
            return 200, {"object": "list", "data": [{"id": "one"}]}
        if method != "POST" or asked != path:
            return 404, {"detail": "Not Found"}
        if body["model"] != "one":
            return 400, {"error": {"message": f"the model {body['model']!r} does not exist"}}
        rows = list(enumerate(vectors(body["input"])))[::-1]
        shown = [(i, b64encode(row.astype("<f4")).decode() if base64 else row.tolist()) for i, row in rows]
        return 200, {"data": [{"index": index, "embedding": row} for index, row in shown]}

    return respond


def tei(vectors: Vectors) -> Callable[..., Answer]:
    """Answers in TEI's shape."""

    def respond(method: str, asked: str, headers: Any, body: Any) -> Answer:
        if (method, asked) == ("GET", "/info"):
            return 200, {"model_id": "some/model", "model_type": {"embedding": {"pooling": "cls"}}}
        if (method, asked) != ("POST", "/embed"):
            return 404, b""
        return 200, vectors(body["inputs"]).tolist()

    return respond
