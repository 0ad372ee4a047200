"""A service as a process: what signals do to it, and with what status it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from service.api.server import CUT_OFF
from tests.support.problems import problem
from tests.support.servers import ROOT, Server

pytestmark = pytest.mark.slow

MEAN = ROOT / "configs" / "mean.yaml"
HEAD = b"POST /embed HTTP/1.1\r\nhost: here\r\ncontent-type: application/json\r\n"


@contextmanager
def serving(folder: Path, timeout: float, config: Path = MEAN) -> Iterator[Server]:
    env = {"MILLPOND_SERVER__SHUTDOWN_TIMEOUT": str(timeout)}
    with Server(config, folder / "store", env) as server:
        yield server


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def rate(server: Server) -> float:
    """What the passes so far tell: another figure after each that others wait for."""
    found: float = server.http.get("/info").json()["models"]["default"]["tokens_per_second"]
    return found


def test_half_a_body_is_answered_before_the_end(tmp_path: Path) -> None:
    with serving(tmp_path, 4) as server, socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
        client.sendall(HEAD + b"content-length: 100\r\nexpect: 100-continue\r\n\r\n")
        answers = client.makefile("rb")
        assert answers.readline() == b"HTTP/1.1 100 Continue\r\n" and answers.readline() == b"\r\n"
        client.sendall(b"{")
        server.process.send_signal(signal.SIGTERM)
        answer = answers.read()
        assert answer.startswith(b"HTTP/1.1 503 ") and b"the service is stopping" in answer
        assert server.process.wait(60) == 0
        assert "1 requests are not done after 3.0 s" in server.last_words()


def test_a_request_of_thousands_of_texts_is_answered_before_the_end(tmp_path: Path) -> None:
    texts = [f"The wheel of mill number {number} turns when water flows over it." for number in range(16_000)]
    with serving(tmp_path, 4) as server, ThreadPoolExecutor(1) as pool:
        before = rate(server)
        asked = pool.submit(server.http.post, "/embed", json={"inputs": texts})
        until(lambda: rate(server) != before)
        server.process.send_signal(signal.SIGTERM)
        problem(asked.result(), 503, "stopping")
        assert server.process.wait(60) == 0


def test_what_is_under_way_is_done_first(tmp_path: Path) -> None:
    texts = [f"The wheel of mill number {number} turns when water flows over it." for number in range(1500)]
    with serving(tmp_path, 30) as server, ThreadPoolExecutor(1) as pool:
        body, before = json.dumps({"inputs": texts}).encode(), rate(server)
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
            client.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(body) + body)
            answer = pool.submit(client.makefile("rb").read)
            until(lambda: rate(server) != before)
            server.process.send_signal(signal.SIGTERM)
            until(lambda: httpx.get(f"{server.url}/ready").status_code == 503)
            problem(httpx.post(f"{server.url}/embed", json={"inputs": "a"}), 503, "stopping")
            assert httpx.get(f"{server.url}/health").status_code == 200
            head, _, content = answer.result().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ") and len(json.loads(content)) == 1500
        assert server.process.wait(60) == 0


def test_what_cannot_be_ended_is_cut_off(tmp_path: Path) -> None:
    """Here one text whose tokenizing takes seconds, and which nothing can interrupt."""
    text = "!" * 1_000_000  # as long as any that is read, with a token for each character
    with serving(tmp_path, 0.5) as server, ThreadPoolExecutor(1) as pool:
        before = threads(server)
        pool.submit(httpx.post, f"{server.url}/tokenize", json={"inputs": text}, timeout=60)
        until(lambda: threads(server) > before)  # the first text of this size starts one that tokenizes
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == CUT_OFF
        assert "(server.shutdown_timeout); the process ends now" in server.last_words()


def threads(server: Server) -> int:
    """How many threads the process has."""
    return len(list(Path(f"/proc/{server.process.pid}/task").iterdir()))


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_service_ends_at_once(tmp_path: Path, sent: signal.Signals) -> None:
    with serving(tmp_path, 600) as server:
        server.process.send_signal(sent)
        assert server.process.wait(60) == 0


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_service_that_still_loads_ends_at_once(tmp_path: Path, sent: signal.Signals, status: int) -> None:
    log = tmp_path / "log"
    command = [
        sys.executable,
        "-m",
        "service",
        "serve",
        "--config",
        MEAN,
        "--port",
        "0",
        "--store",
        tmp_path / "store",
    ]
    with log.open("wb") as output, subprocess.Popen(command, cwd=ROOT, stderr=output) as process:
        until(lambda: "loading bundled" in log.read_text())
        process.send_signal(sent)
        assert process.wait(timeout=60) == status
    assert "Millpond serves at" not in log.read_text()


def test_a_config_from_a_pipe_is_read_once(tmp_path: Path) -> None:
    """And a reload does not wait for another one."""
    config = tmp_path / "pipe"
    os.mkfifo(config)
    with ThreadPoolExecutor(1) as pool:
        written = pool.submit(config.write_text, MEAN.read_text())
        with Server(config, tmp_path / "store") as server:
            written.result()
            problem(server.http.post("/admin/reload"), 409, "pipe: is no regular file")
            os.kill(server.process.pid, signal.SIGHUP)
            until(lambda: "the config is served as it was" in server.log.read_text())
            assert server.http.post("/embed", json={"inputs": "a"}).status_code == 200


def test_sighup_reloads_limits_and_the_log_level(tmp_path: Path) -> None:
    config = tmp_path / "deployment.yaml"
    models = "models: {default: {encoder: bundled/all-MiniLM-L6-v2}}\n"
    config.write_text(models)

    def reloaded(text: str, *words: str) -> dict[str, object]:
        seen = len(server.log.read_text())
        config.write_text(text)
        os.kill(server.process.pid, signal.SIGHUP)
        until(lambda: all(word in server.log.read_text()[seen:] for word in words))
        limits: dict[str, object] = server.http.get("/info").json()["limits"]
        return limits

    with Server(config, tmp_path / "store") as server:
        before = server.http.get("/info").json()["limits"]
        changed = "server: {max_texts: 2, max_requests: 9}\nbatching: {max_queued_tokens: 500}\n"
        found = reloaded(models + changed, "changed: ", "server.max_texts", "batching.max_queued_tokens")
        assert found == before | {"max_texts": 2, "max_requests": 9, "max_queued_tokens": 500}
        problem(server.http.post("/embed", json={"inputs": ["a"] * 3}), 413, "takes 2")
        found = reloaded("models: {", "the config is served as it was", "not valid YAML")
        assert found["max_texts"] == 2
        found = reloaded(
            models.replace("}}", ", pooling: cls}}") + "server: {max_body_bytes: 5000, log_level: warning}\n",
            "a change of models, server.max_body_bytes needs a restart",
        )
        assert found == before
        assert server.log.read_text().count("the config was read again") == 1
        reloaded(models, "the config was read again; changed: server.log_level")
        config.write_text(models + "server: {max_texts: 7}\nstore: {path: elsewhere}\n")
        answer = server.http.post("/admin/reload").raise_for_status().json()
        # --store overrides the file, then as at the start.
        assert answer == {"changed": ["server.max_texts"], "restart": [], "keys": []}
        assert server.http.get("/info").json()["limits"] == before | {"max_texts": 7}
        assert server.http.post("/embed", json={"inputs": "a"}).status_code == 200
