"""What was acknowledged outlives the process, whatever ends it."""

from __future__ import annotations

import http.client
import itertools
import json
import signal
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.support.servers import ROOT, Server

CONFIG = ROOT / "configs" / "mean.yaml"
WRITERS, GROUPS, SIZE = 4, 3, 6


def text(writer: int, group: int, version: int, item: int) -> str:
    return f"Report {item} of writer {writer} on subject {group}, edition {version}."


def name_of(writer: int) -> str:
    """The collection that a writer writes to."""
    return ("reports", "chunks")[writer % 2]


@pytest.mark.parametrize(
    "kills", [1, pytest.param(5, marks=pytest.mark.slow), pytest.param(20, marks=pytest.mark.peers)]
)
def test_kill_in_the_middle_of_indexing(tmp_path: Path, kills: int) -> None:
    """Each request replaces a whole group of documents by its next version; some are cut into their sentences."""
    store = tmp_path / "store"
    acknowledged: dict[tuple[int, int], int] = {}
    in_doubt: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
    versions = itertools.count()
    requests = threading.Semaphore(0)

    def write(url: str, writer: int) -> None:
        for group in itertools.cycle(range(GROUPS)):
            version = next(versions)
            documents = [
                {"id": f"{writer}/{group}/{item}", "text": text(writer, group, version, item)} for item in range(SIZE)
            ]
            in_doubt[writer, group].add(version)
            try:
                path = f"{url}/collections/{name_of(writer)}/documents"
                answer = httpx.post(path, json={"documents": documents}, timeout=60)
            except httpx.TransportError:
                return
            assert answer.json() == {"upserted": SIZE, "unchanged": 0}
            acknowledged[writer, group] = version
            in_doubt[writer, group].clear()
            requests.release()

    for _ in range(kills):
        with Server(CONFIG, store) as server:
            server.http.put("/collections/reports").raise_for_status()
            chunking = {"by": "sentence", "mode": "early"}
            server.http.put("/collections/chunks", json={"chunking": chunking}).raise_for_status()
            with ThreadPoolExecutor(WRITERS) as pool:
                writers = [pool.submit(write, server.url, writer) for writer in range(WRITERS)]
                for _ in range(40):
                    assert requests.acquire(timeout=60)
                server.kill()
                for writer in writers:
                    writer.result(timeout=60)

    assert len(acknowledged) == WRITERS * GROUPS
    assert any(in_doubt.values())  # it did end in the middle of something
    with Server(CONFIG, store) as server:
        expected: dict[str, str] = {}
        for (writer, group), version in acknowledged.items():
            ids = [f"{writer}/{group}/{item}" for item in range(SIZE)]
            path = f"/collections/{name_of(writer)}/documents"
            found = [server.http.get(f"{path}/{name}").json()["text"] for name in ids]
            possible = [
                [text(writer, group, either, item) for item in range(SIZE)]
                for either in (version, *in_doubt[writer, group])
            ]
            assert found in possible  # whole, and never older than what was acknowledged
            expected |= dict(zip(ids, found, strict=True))
        for collection in ("reports", "chunks"):
            mine = {name: stored for name, stored in expected.items() if name_of(int(name[0])) == collection}
            about = server.http.get(f"/collections/{collection}").json()
            assert about["count"] == len(mine)
            assert about.get("chunks", about["count"]) == about["count"]  # each is one sentence
            body = {"queries": list(mine.values()), "k": 3}
            answer = server.http.post(f"/collections/{collection}/search", json=body).json()
            for name, result in zip(mine, answer["results"], strict=True):
                best = result["hits"][0]["score"]
                assert best == pytest.approx(1, abs=1e-5)
                hit = {hit["id"]: hit for hit in result["hits"]}[name]
                assert hit["score"] == pytest.approx(best, abs=1e-6) and hit["text"] == mine[name]
                assert hit.get("span", hit)["text"] == mine[name]

        _sigterm_during_a_request(server)


def _sigterm_during_a_request(server: Server) -> None:
    """The request under way is answered, and the service ends cleanly with all it stored."""
    documents = [{"id": f"last/{item}", "text": f"document {item} " * 50} for item in range(100)]
    body = json.dumps({"documents": documents}).encode()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    connection.putrequest("POST", "/collections/reports/documents")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", str(len(body)))
    connection.putheader("Expect", "100-continue")
    connection.endheaders()
    # It says so when its route asks for the body: from then on the request is under way.
    assert connection.sock.recv(1000).startswith(b"HTTP/1.1 100 Continue")
    server.process.send_signal(signal.SIGTERM)
    connection.send(body)
    answer = connection.getresponse()
    assert json.load(answer) == {"upserted": 100, "unchanged": 0}
    connection.close()
    assert server.process.wait(30) == 0
    assert "Traceback" not in server.log.read_text()
