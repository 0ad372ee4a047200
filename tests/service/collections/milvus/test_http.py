"""The routes of collections over Milvus: the HTTP contract is the same, and what Milvus lacks is refused in words."""

import json
import time

import pytest
from fastapi.testclient import TestClient

from service.api import create_app
from service.config import Config
from service.deployment import open_deployment
from tests.support.applications import EXPORTED

pytestmark = pytest.mark.peers
TEXTS = {"cat": "A cat sleeps. It purrs.", "harp": "A woman plays the harp.", "dough": "Bread is baked from dough."}


@pytest.fixture
def http(milvus):
    """A client of a service over Milvus, whose model has the pooling that is asked for."""
    opened = []

    def open_(pooling="mean"):
        config = {
            "models": {"default": {"encoder": str(EXPORTED), "pooling": pooling}},
            "runtime": {"backend": "torch", "precision": "fp32", "threads": 1},
            "store": {"engine": "milvus", "uri": milvus.uri},
        }
        client = TestClient(create_app(open_deployment(Config.model_validate(config))))
        client.__enter__()
        opened.append(client)
        return client

    yield open_
    for client in opened:
        client.__exit__(None, None, None)


def fill(http, name="notes", **asked):
    assert (made := http.put(f"/collections/{name}", json=asked)).status_code == 201, made.text
    documents = [{"id": id_, "text": text, "metadata": {"of": id_}} for id_, text in TEXTS.items()]
    stored = http.post(f"/collections/{name}/documents", json={"documents": documents})
    assert stored.json() == {"upserted": 3, "unchanged": 0}, stored.text
    return documents


def ids(answer):
    assert answer.status_code == 200, answer.text
    return [hit["id"] for hit in answer.json()["hits"]]


def test_a_collection_and_its_names(http):
    http = http()
    documents = fill(http, index="flat", chunking={"by": "sentence"})
    again = http.post("/collections/notes/documents", json={"documents": documents})
    assert again.json() == {"upserted": 3, "unchanged": 3}
    assert ids(http.post("/collections/notes/search", json={"query": TEXTS["harp"], "k": 1})) == ["harp"]
    only = {"query": TEXTS["harp"], "k": 9, "filter": {"of": {"$ne": "harp"}}, "group": "document"}
    assert sorted(ids(http.post("/collections/notes/search", json=only))) == ["cat", "dough"]
    assert "cat" not in ids(http.post("/collections/notes/recommend", json={"positive": ["cat"], "k": 9}))
    assert http.put("/aliases/live", json={"collection": "notes"}).status_code == 201
    assert http.post("/collections/notes/rename", json={"to": "drafts"}).json()["aliases"] == ["live"]
    assert http.post("/collections/live/copy", json={"to": "kept"}).status_code == 201
    assert http.get("/aliases").json() == {"aliases": [{"alias": "live", "collection": "drafts"}]}
    listed = http.get("/collections").json()["collections"]
    assert [(each["name"], each["count"], each["chunks"]) for each in listed] == [("drafts", 3, 4), ("kept", 3, 4)]
    lines = [json.loads(line) for line in http.get("/collections/kept/export").text.splitlines()]
    assert [{**line} for line in lines] == documents
    plane = http.post("/collections/live/project", json={}).json()
    assert (plane["total"], sorted(plane["ids"]), len(plane["points"])) == (3, ["cat", "cat", "dough", "harp"], 4)
    figures = http.get("/metrics").text
    assert 'millpond_collection_documents{collection="kept"} 3.0' in figures
    assert http.delete("/collections/drafts").status_code == 204
    assert http.get("/collections/live").status_code == 404


def test_another_pooling_and_a_reindex(http):
    mean, other = http(), http("max")
    fill(mean)
    refused = other.post("/collections/notes/search", json={"query": "A cat", "k": 1})
    assert (refused.status_code, refused.json()["code"]) == (409, "fingerprint_mismatch"), refused.text
    assert other.put("/collections/notes").status_code == 409
    stored = other.post("/collections/notes/documents", json={"documents": [{"id": "x", "text": "A cat"}]})
    assert (stored.status_code, stored.json()["code"]) == (409, "fingerprint_mismatch")
    assert other.post("/collections/notes/reindex", json={}).status_code == 202
    until = time.monotonic() + 60
    while (progress := other.get("/collections/notes/reindex").json()).get("state") == "running":
        assert time.monotonic() < until
        time.sleep(0.1)
    assert (progress.get("state"), progress.get("done")) == ("complete", 3), progress
    assert ids(other.post("/collections/notes/search", json={"query": TEXTS["cat"], "k": 1})) == ["cat"]
    refused = mean.post("/collections/notes/search", json={"query": "A cat", "k": 1})
    assert refused.json()["code"] == "fingerprint_mismatch"


def test_what_is_refused(http):
    http = http()
    for asked, status, code, said in (
        ({"keyword": {}}, 409, "keywords_unavailable", "full text came with Milvus 2.5"),
        ({"idle_timeout": 60}, 422, "invalid_input", "has no idle timeout"),
        ({"index": "hnsw", "recall": 0.9}, 422, "invalid_index", "takes no recall"),
    ):
        refused = http.put("/collections/notes", json=asked)
        assert (refused.status_code, refused.json()["code"]) == (status, code), refused.text
        assert said in refused.json()["detail"]
    fill(http)
    for mode in ("keyword", "hybrid"):
        refused = http.post("/collections/notes/search", json={"query": "A cat", "k": 1, "mode": mode})
        assert (refused.status_code, refused.json()["code"]) == (409, "keywords_unavailable"), refused.text
    contains = {"query": "A cat", "k": 1, "filter": {"of": {"$contains": "ca"}}}
    assert http.post("/collections/notes/search", json=contains).json()["code"] == "invalid_filter"
    compacted = http.post("/compact", json={})
    assert (compacted.status_code, "compacts what it stores by itself" in compacted.text) == (422, True)
