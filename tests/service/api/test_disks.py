"""A service whose disk fills: what it refuses it says, what it acknowledged it keeps, and it goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.support.checkpoints import plain_bert
from tests.support.disks import Disk
from tests.support.problems import problem
from tests.support.servers import NotStarted, Server

MEGABYTE = 1 << 20


@pytest.mark.slow
def test_a_disk_that_fills_under_a_service(tmp_path: Path, disk: Callable[[int, Path], Disk]) -> None:
    model = {"encoder": str(plain_bert(tmp_path / "model")), "pooling": "mean"}
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"models": {"default": model}}))
    store = tmp_path / "store"
    small = disk(8 * MEGABYTE, store)  # the log of the service is beside it
    kept: dict[str, str] = {}

    def put(http: httpx.Client, ids: list[str], version: int) -> httpx.Response:
        texts = {id_: f"document {id_} in version {version}" for id_ in ids}
        documents = [{"id": i, "text": text, "metadata": {"pad": "x" * 2000}} for i, text in texts.items()]
        answer = http.post("/collections/notes/documents", json={"documents": documents})
        if answer.is_success:
            kept.update(texts)
        return answer

    def full(answer: httpx.Response) -> dict[str, Any]:
        assert answer.headers["retry-after"] == "5"
        told = problem(answer, 503, "Nothing stored")
        assert "disk is full" in told["detail"] or "disk refused (full" in told["detail"]
        assert told["code"] == "store_unavailable"
        return told

    def check(http: httpx.Client) -> None:
        listed = http.post("/collections/notes/documents/list", json={"limit": 10_000}).json()["documents"]
        assert {document["id"]: document["text"] for document in listed} == kept
        body = {"query": "document", "k": 10_000, "include": ["text"]}
        for mode in ("dense", "keyword"):
            hits = http.post("/collections/notes/search", json=body | {"mode": mode}).json()["hits"]
            assert {hit["id"]: hit["text"] for hit in hits} == kept

    with Server(config, store) as server:
        http = server.http
        http.put("/collections/notes").raise_for_status()
        for version in range(1000):
            answer = put(http, [f"d{i}" for i in range(version, version + 50)], version)
            if not answer.is_success:
                break
        full(answer)
        small.fill()
        refused = 0
        for version in range(5):
            for change in (
                put(http, ["new"], version),
                http.post("/collections/notes/documents/metadata", json={"all": True, "merge": {"v": version}}),
                http.post("/collections/notes/copy", json={"to": f"copy-{version}"}),
                http.put(f"/collections/other-{version}"),
                http.post("/compact"),
            ):
                if not change.is_success:
                    full(change)
                    refused += 1
            gone = http.delete(f"/collections/notes/documents/{next(iter(kept))}")
            if gone.is_success:
                del kept[next(iter(kept))]
            else:
                full(gone)
            check(http)
        assert refused
        assert http.get("/health").is_success and http.get("/collections").is_success
        server.kill()
    small.fill()
    try:
        with Server(config, store) as server:
            check(server.http)
    except NotStarted as error:
        assert "free some space" in str(error) or "full, over quota" in str(error)
        assert "Traceback" not in str(error)
    small.empty()
    small.resize(20 * MEGABYTE)
    with Server(config, store) as server:
        check(server.http)
        for each in list(kept)[10:]:
            assert server.http.delete(f"/collections/notes/documents/{each}").status_code == 204
            del kept[each]
        server.http.post("/compact").raise_for_status()
        put(server.http, ["last"], 0).raise_for_status()
        check(server.http)
