"""A clock that is wrong, or goes backwards, changes nothing but what is told of it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.support.checkpoints import plain_bert
from tests.support.servers import Server

# Python reads it at its start: the clock of the process shows another time, and runs backwards from there.
SITE = """
import datetime
import os
import time

_real, _began, _shown = time.time, time.time(), float(os.environ["SHOWN_TIME"])

def _backwards():
    return _shown - 100 * (_real() - _began)

class _Backwards(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(_backwards(), tz)

    @classmethod
    def utcnow(cls):
        return cls.fromtimestamp(_backwards(), datetime.timezone.utc).replace(tzinfo=None)

time.time = _backwards
time.time_ns = lambda: int(_backwards() * 1e9)
datetime.datetime = _Backwards
"""


def at(year: int) -> dict[str, str]:
    return {"SHOWN_TIME": str(datetime(year, 6, 1, tzinfo=UTC).timestamp())}


def asked(http: httpx.Client, path: str, **body: Any) -> Any:
    answer = http.post(path, json=body)
    assert answer.is_success, answer.text
    return answer.json()


@pytest.mark.slow
def test_a_clock_that_goes_backwards(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SITE)
    model = {"encoder": str(plain_bert(tmp_path / "model")), "pooling": "mean"}
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"models": {"default": model}}))
    site = {"PYTHONPATH": str(tmp_path / "site")}
    documents = [{"id": str(n), "text": f"the mill {n} by the pond {n}", "metadata": {"n": n}} for n in range(1200)]
    with Server(config, tmp_path / "store", site | at(2040)) as server:
        http = server.http
        http.put("/collections/notes", json={"index": "hnsw"}).raise_for_status()
        for start in range(0, 1200, 200):
            asked(http, "/collections/notes/documents", documents=documents[start : start + 200])
        while True:
            state = http.get("/collections/notes").json()["index_state"]
            if state["uses"] == "hnsw" and "building" not in state:
                break
            assert http.get("/ready").is_success
        first = http.get("/collections/notes").json()
        assert first["created"].startswith("2040-") or first["created"].startswith("2039-")
        cursor = asked(http, "/collections/notes/documents/list", limit=700)["cursor"]
        before = asked(http, "/collections/notes/search", query="the mill 7 by the pond 7", k=20)
        server.kill()
    with Server(config, tmp_path / "store", site | at(1980)) as server:
        http = server.http
        again = http.get("/collections/notes").json()
        assert again == first  # its age, and the graph of a snapshot from the future
        assert asked(http, "/collections/notes/search", query="the mill 7 by the pond 7", k=20) == before
        rest = asked(http, "/collections/notes/documents/list", limit=700, cursor=cursor)["documents"]
        assert [document["id"] for document in rest] == [str(n) for n in range(700, 1200)]
        asked(http, "/collections/notes/documents", documents=[{"id": "7", "text": "a harp"}])
        assert http.delete("/collections/notes/documents/8").status_code == 204
        made = http.put("/collections/later").json()
        assert made["created"] < first["created"] and made["created"][:2] == "19"
        progress = asked(http, "/collections/notes/reindex", force=True)
        while progress["state"] == "running":
            progress = http.get("/collections/notes/reindex").json()
            assert progress["texts_per_second"] is None or progress["texts_per_second"] > 0
        assert progress["state"] == "complete", progress
        asked(http, "/compact")
        assert asked(http, "/collections/notes/documents/count") == {"count": 1199}
        hits = asked(http, "/collections/notes/search", query="a harp", mode="keyword")["hits"]
        assert [hit["id"] for hit in hits if hit["text"] == "a harp"] == ["7"]
        assert http.get("/v1/models").is_success and http.get("/info").is_success
        assert "Traceback" not in server.log.read_text()
