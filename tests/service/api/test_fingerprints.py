"""A collection is never searched with another embedder than the one that made it."""

from __future__ import annotations

from pathlib import Path

from tests.servers import ROOT, Server
from tests.service.api.checks import problem

DOCUMENTS = {
    "documents": [{"id": "harp", "text": "A man is playing a harp."}, {"id": "cat", "text": "A cat sleeps."}]
}


def test_a_collection_under_another_pooling_is_refused_until_the_first_is_back(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with Server(ROOT / "configs" / "mean.yaml", store) as server:
        made = server.http.put("/collections/songs", json={}).json()
        assert server.http.post("/collections/songs/documents", json=DOCUMENTS).json()["upserted"] == 2
        hits = server.http.post("/collections/songs/search", json={"query": "music"}).json()
        assert "songs" not in server.log.read_text()

    with Server(ROOT / "configs" / "cls.yaml", store) as server:
        served = server.http.get("/info").json()["models"]["default"]["fingerprint"]
        assert served != made["fingerprint"]
        log = server.log.read_text()
        assert "WARNING" in log and "collection 'songs'" in log and "pooling: 'mean', now 'cls'" in log
        more = {"documents": [{"id": "new", "text": "new"}]}
        for path, body in (
            ("search", {"query": "music"}),
            ("search", {"queries": ["music"]}),
            ("documents", more),
            ("documents", DOCUMENTS),
        ):
            refusal = problem(
                server.http.post(f"/collections/songs/{path}", json=body),
                409,
                "'songs'",
                "pooling: 'mean', now 'cls'",
                "Serve the model as it was, or build the collection anew",
            )
            assert refusal["type"] == "urn:millpond:fingerprint-mismatch"
            assert (refusal["stored"]["pooling"], refusal["served"]["pooling"]) == ("mean", "cls")
            assert refusal["differences"]["pooling"] == {"stored": "mean", "served": "cls"}
            assert refusal["differences"]["fingerprint"] == {"stored": made["fingerprint"], "served": served}
            assert "encoder" not in refusal["differences"]
        problem(server.http.put("/collections/songs", json={}), 409, '"mean"', '"cls"')
        assert (
            server.http.get("/collections/songs/documents/harp").json()["text"] == DOCUMENTS["documents"][0]["text"]
        )
        assert server.http.get("/collections/songs").json()["count"] == 2
        assert server.http.get("/ready").status_code == 200
        # The same vectors by another way: the model is there under another pooling than it has of its own.
        assert server.http.put("/collections/mean-again", json={"pooling": "mean"}).status_code == 201
        assert server.http.post("/collections/mean-again/documents", json=DOCUMENTS).status_code == 200
        found = server.http.post("/collections/mean-again/search", json={"query": "music"}).json()["hits"]
        assert [hit["id"] for hit in found] == [hit["id"] for hit in hits["hits"]]

    with Server(ROOT / "configs" / "mean.yaml", store) as server:
        assert server.http.post("/collections/songs/search", json={"query": "music"}).json() == hits
        assert server.http.post("/collections/songs/documents", json=more).json() == {"upserted": 1, "unchanged": 0}
        assert server.http.post("/collections/mean-again/search", json={"query": "music"}).status_code == 200
        assert "WARNING" not in server.log.read_text()
