"""What was acknowledged outlives the process, whatever ends it."""

from __future__ import annotations

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.servers import ROOT, Server

CONFIG = ROOT / "configs" / "mean.yaml"
WRITERS, GROUPS, SIZE = 4, 3, 6


def text(writer: int, group: int, version: int, item: int) -> str:
    return f"Report {item} of writer {writer} on subject {group}, edition {version}."


def test_kill_in_the_middle_of_indexing(tmp_path: Path) -> None:
    """Each request replaces a whole group of documents by its next version."""
    store = tmp_path / "store"
    sent: dict[tuple[int, int], int] = {}
    acknowledged: dict[tuple[int, int], int] = {}
    requests = threading.Semaphore(0)

    with Server(CONFIG, store) as server:
        assert server.http.put("/collections/reports").status_code == 201

        def write(writer: int) -> None:
            for number in range(100_000):
                group, version = number % GROUPS, number // GROUPS
                documents = [
                    {"id": f"{writer}/{group}/{item}", "text": text(writer, group, version, item)}
                    for item in range(SIZE)
                ]
                sent[writer, group] = version
                try:
                    url = f"{server.url}/collections/reports/documents"
                    answer = httpx.post(url, json={"documents": documents}, timeout=60)
                except httpx.TransportError:
                    return
                assert answer.json() == {"upserted": SIZE, "unchanged": 0}
                acknowledged[writer, group] = version
                requests.release()

        with ThreadPoolExecutor(WRITERS) as pool:
            writers = [pool.submit(write, writer) for writer in range(WRITERS)]
            for _ in range(40):
                assert requests.acquire(timeout=60)
            server.kill()
            for writer in writers:
                writer.result(timeout=60)

    assert len(acknowledged) == WRITERS * GROUPS
    assert any(sent[key] > acknowledged.get(key, -1) for key in sent)  # it did end in the middle of something
    with Server(CONFIG, store) as server:
        expected: dict[str, str] = {}
        for (writer, group), version in acknowledged.items():
            ids = [f"{writer}/{group}/{item}" for item in range(SIZE)]
            found = [server.http.get(f"/collections/reports/documents/{name}").json()["text"] for name in ids]
            possible = [
                [text(writer, group, either, item) for item in range(SIZE)]
                for either in (version, sent[writer, group])
            ]
            assert found in possible  # whole, and never older than what was acknowledged
            expected |= dict(zip(ids, found, strict=True))
        about = server.http.get("/collections/reports").json()
        unacknowledged = [key for key in sent if key not in acknowledged]
        assert about["count"] - len(expected) in {SIZE * number for number in range(len(unacknowledged) + 1)}
        answer = server.http.post(
            "/collections/reports/search", json={"queries": list(expected.values()), "k": 3}
        ).json()
        for name, result in zip(expected, answer["results"], strict=True):
            best = result["hits"][0]["score"]
            assert best == pytest.approx(1, abs=1e-5)
            mine = {hit["id"]: hit for hit in result["hits"]}[name]
            assert mine["score"] == pytest.approx(best, abs=1e-6) and mine["text"] == expected[name]

        _sigterm_during_a_request(server)


def _sigterm_during_a_request(server: Server) -> None:
    """The request under way is answered, and the service ends cleanly with all it stored."""
    documents = [{"id": f"last/{item}", "text": f"document {item} " * 50} for item in range(100)]
    url = f"{server.url}/collections/reports/documents"
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(httpx.post, url, json={"documents": documents}, timeout=120)
        time.sleep(0.5)
        assert not asked.done()
        server.process.send_signal(signal.SIGTERM)
        answer = asked.result()
    assert answer.json() == {"upserted": 100, "unchanged": 0}
    assert server.process.wait(30) == 0
    assert "Traceback" not in server.log.read_text()
