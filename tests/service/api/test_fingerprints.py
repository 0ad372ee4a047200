"""A collection is never searched with another embedder than the one that made it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.support import checkpoints
from tests.support.problems import problem
from tests.support.servers import ROOT, Server

DOCUMENTS = {
    "documents": [{"id": "harp", "text": "A man is playing a harp."}, {"id": "cat", "text": "A cat sleeps."}]
}


@pytest.mark.slow
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
                "Serve the model as it was, or re-embed the collection",
                "`millpond reindex songs`",
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


@pytest.mark.slow
def test_weights_pooling_prompts_and_normalisation_each_count(tmp_path: Path) -> None:
    """One model for each, all the same at first; then each is changed in one thing."""
    plain = checkpoints.plain_bert(tmp_path / "plain")
    one = checkpoints.sentence_transformer(plain, tmp_path / "one")
    other = shutil.copytree(one, tmp_path / "other")
    weights = load_file(one / "model.safetensors")
    save_file(
        {name: weight * 1.01 for name, weight in weights.items()}, other / "model.safetensors", {"format": "pt"}
    )
    same = {"encoder": str(one), "pooling": "mean", "prompts": {"query": "find: "}, "normalize": True}
    changes = {
        "encoder": ({"encoder": str(other)}, None),
        "pooling": ({"pooling": "cls"}, "pooling: 'mean', now 'cls'"),
        "prompts": ({"prompts": {"query": "seek: "}}, "prompts: {'query': 'find: '}, now {'query': 'seek: '}"),
        "normalize": ({"normalize": False}, "normalize: True, now False"),
    }
    before = deployment(tmp_path / "before.yaml", dict.fromkeys(changes, same))
    after = deployment(tmp_path / "after.yaml", {name: same | change for name, (change, _) in changes.items()})
    with Server(before, tmp_path / "store") as server:
        for name in changes:
            assert server.http.put(f"/collections/{name}", json={"model": name}).status_code == 201
            assert server.http.post(f"/collections/{name}/documents", json=DOCUMENTS).status_code == 200

    with Server(after, tmp_path / "store") as server:
        log = server.log.read_text()
        for name, (_, words) in changes.items():
            assert f"`millpond reindex {name}`" in log
            for path, body in (("search", {"query": "music"}), ("documents", DOCUMENTS)):
                answer = server.http.post(f"/collections/{name}/{path}", json=body)
                refusal = problem(answer, 409, f"'{name}'", words or "encoder: ", f"`millpond reindex {name}`")
                differences = refusal["differences"]
                assert differences.keys() - {"fingerprint", "pooling_parameters"} == {name}
                assert all(refusal[side][name] == differences[name][side] for side in ("stored", "served"))
                assert differences[name]["stored"] != differences[name]["served"]
                assert refusal["collection"] == name


def deployment(path: Path, models: dict[str, object]) -> Path:
    runtime = {"backend": "torch", "threads": 1}
    path.write_text(json.dumps({"models": models, "runtime": runtime}))  # which is YAML too
    return path
