"""The Milvus server, or one of several services on it, is killed while documents are stored by HTTP.

No document that was acknowledged is lost, what cannot be done now is answered with 503 and `Retry-After`, and all
goes on without a restart of what was not killed.
"""

import json
import threading
import time
from contextlib import ExitStack

import httpx
import pytest
import yaml

from tests.support.applications import EXPORTED
from tests.support.servers import Server

pytestmark = pytest.mark.peers
SIZE = 20
CHUNKED = {"chunking": {"by": "sentence"}}


@pytest.fixture
def services(milvus, tmp_path):
    """Starts so many services on one Milvus server."""
    config = {
        "models": {"default": {"encoder": str(EXPORTED)}},
        "runtime": {"backend": "torch", "threads": 1},
        "store": {"engine": "milvus", "uri": milvus.uri},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    with ExitStack() as running:
        yield lambda count: [
            running.enter_context(Server(tmp_path / "config.yaml", tmp_path / f"store{place}"))
            for place in range(count)
        ]


class Writer:
    """Stores documents by one service after the other, each request again until it is acknowledged."""

    def __init__(self, services):
        self.acknowledged = {}
        self.refused = []
        self.over = threading.Event()
        self._services = services
        self._thread = threading.Thread(target=self._run)
        self._failed = None

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self._thread.join(60)
        if self._failed is not None:
            raise self._failed

    def wait_for(self, condition):
        until = time.monotonic() + 120
        while not condition():
            assert self._thread.is_alive(), self._failed
            assert time.monotonic() < until
            time.sleep(0.01)

    def _run(self):
        try:
            turn = 0
            while not self.over.is_set():
                ids = [f"{turn}-{place}" for place in range(SIZE)]
                documents = [
                    {"id": id_, "text": f"{id_} is one. It has two.", "metadata": {"of": id_}} for id_ in ids
                ]
                while not self._stored(documents):
                    pass
                self.acknowledged |= {each["id"]: each for each in documents}
                turn += 1
        except BaseException as error:
            self._failed = error

    def _stored(self, documents):
        try:
            answer = self._services[0].http.post("/collections/notes/documents", json={"documents": documents})
        except httpx.TransportError:
            self._services = self._services[1:]
            return False
        if answer.status_code == 503:
            assert int(answer.headers["Retry-After"]) > 0
            self.refused.append(answer.json())
            time.sleep(0.2)
            return False
        assert answer.status_code == 200, answer.text
        return True


def stored(service):
    """All documents, each with a vector for each of its sentences."""
    answer = service.http.get("/collections/notes/export", params={"include": "vectors"})
    assert answer.status_code == 200, answer.text
    found = {}
    for line in answer.text.splitlines():
        document = json.loads(line)
        assert len(document["vectors"]) == len(document["spans"]) == 2
        found[document["id"]] = {key: document[key] for key in ("id", "text", "metadata")}
    return found


def test_the_server_is_killed_in_mid_upsert(milvus, services):
    (service,) = services(1)
    assert (made := service.http.put("/collections/notes", json=CHUNKED)).status_code == 201, made.text
    with Writer([service]) as writer:
        writer.wait_for(lambda: len(writer.acknowledged) >= 5 * SIZE)
        milvus.kill()
        writer.wait_for(lambda: len(writer.refused) >= 5)
        search = service.http.post("/collections/notes/search", json={"query": "two", "k": 3})
        assert (search.status_code, search.json()["code"]) == (503, "store_unavailable")
        assert int(search.headers["Retry-After"]) > 0 and milvus.uri in search.json()["detail"]
        assert service.http.get("/ready").status_code == 503
        assert service.http.get("/health").status_code == 200
        assert service.http.post("/embed", json={"inputs": "a text"}).status_code == 200
        before = len(writer.acknowledged)
        milvus.start()
        writer.wait_for(lambda: len(writer.acknowledged) >= before + 5 * SIZE)
    assert {each["code"] for each in writer.refused} == {"store_unavailable"}
    assert service.http.get("/ready").status_code == 200
    found = stored(service)
    assert found == writer.acknowledged
    assert service.http.get("/collections/notes").json()["count"] == len(found)
    print(f"{len(found)} acknowledged and found, {len(writer.refused)} requests refused meanwhile")


def test_one_of_two_services_is_killed_in_mid_upsert(services):
    first, second = services(2)
    assert (made := first.http.put("/collections/notes", json=CHUNKED)).status_code == 201, made.text
    with Writer([first, second]) as writer:
        writer.wait_for(lambda: len(writer.acknowledged) >= 5 * SIZE)
        first.kill()
        before = len(writer.acknowledged)
        writer.wait_for(lambda: len(writer.acknowledged) >= before + 5 * SIZE)
    assert writer.refused == []
    found = stored(second)
    assert found == writer.acknowledged
    search = second.http.post("/collections/notes/search", json={"query": "1-1 is one.", "k": 5})
    assert search.status_code == 200 and len(search.json()["hits"]) == 5
    print(f"{len(found)} acknowledged and found, none refused")
