"""The ends of an evaluation: one at a time, a client that leaves, and a service that stops."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
import yaml

from service.api import create_app
from tests.support.applications import EXPORTED, tiny_deployment
from tests.support.problems import problem
from tests.support.servers import Server

WORDS = "mill wheel river stone grain water pond hay flour sluice"
LONG = {
    "pairs": [
        {"sentence1": f"{WORDS} {WORDS} {place}", "sentence2": f"{WORDS} {place % 7}", "score": place % 9}
        for place in range(1500)
    ]
}
SHORT = {"pairs": LONG["pairs"][:24], "pooling": "mean"}


def until(true: Any) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A service in this process, whose temporary folder is `tmp_path / "temporary"`."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with tiny_deployment(tmp_path / "store") as served:
        server = uvicorn.Server(uvicorn.Config(create_app(served), port=0, log_level="warning"))
        thread = threading.Thread(target=server.run)
        thread.start()
        until(lambda: server.started)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.mark.slow
def test_one_at_a_time_until_its_client_leaves(url: str, tmp_path: Path) -> None:
    with httpx.Client(base_url=url, timeout=60) as first, httpx.Client(base_url=url, timeout=60) as second:
        for _ in range(2):
            with first.stream("POST", "/evaluate", json=LONG) as begun:
                lines = begun.iter_lines()
                assert "progress" in json.loads(next(lines))
                until(lambda: [*(tmp_path / "temporary").iterdir()])
                refused = second.post("/evaluate", json=SHORT)
                told = problem(refused, 503, "another evaluation is under way, and they are made one at a time")
                assert told["code"] == "unavailable" and int(refused.headers["retry-after"]) > 0
                assert second.post("/embed", json={"inputs": "a mill"}).status_code == 200
            threads = threading.active_count()
            after = second.post("/evaluate", json=SHORT)  # waits for the end of the one that was left, and no longer
            assert after.status_code == 200 and "report" in json.loads(after.text.splitlines()[-1])
            assert not [*(tmp_path / "temporary").iterdir()]
            assert threading.active_count() <= threads


@pytest.mark.slow
def test_a_service_that_stops_says_so_in_the_last_line(tmp_path: Path) -> None:
    config = tmp_path / "tiny.yaml"
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    config.write_text(
        yaml.safe_dump(
            {
                "models": {"default": {"encoder": str(EXPORTED)}},
                "runtime": {"backend": "torch", "threads": 1},
                "server": {"shutdown_timeout": 120},
            }
        )
    )
    with Server(config, tmp_path / "store", {"TMPDIR": str(temporary)}) as server:
        with server.http.stream("POST", "/evaluate", json=LONG) as begun:
            lines = begun.iter_lines()
            assert "progress" in json.loads(next(lines))
            until(lambda: [*temporary.iterdir()])
            server.process.terminate()
            *_, last = lines
        told = json.loads(last)["error"]
        assert (told["status"], told["code"]) == (503, "unavailable")
        assert "the service is stopping" in told["detail"]
        assert server.process.wait(60) == 0  # well before the drain's 120 seconds are over
    assert not [*temporary.iterdir()]
