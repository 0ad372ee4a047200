"""Temporary collections over HTTP: they are dropped once no request has named them for their idle timeout."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import yaml

from service.collections.embedded import EmbeddedEngine
from tests.support.checkpoints import plain_bert
from tests.support.forks import Forked, Forks
from tests.support.problems import problem

DOCUMENTS = [{"id": "harp", "text": "A man is playing a harp."}, {"id": "cat", "text": "A cat sleeps in the sun."}]


@pytest.fixture
def name(http: httpx.Client) -> Iterator[str]:
    """A name; what is called so, or begins so, is dropped at the end."""
    name = f"temporary-{uuid4().hex[:12]}"
    yield name
    for left in listed(http):
        if left.startswith(name):
            http.delete(f"/collections/{left}")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A deployment that starts fast."""
    folder = tmp_path_factory.mktemp("temporary")
    model = {"encoder": str(plain_bert(folder / "model")), "pooling": "mean"}
    runtime = {"backend": "torch", "precision": "fp32", "threads": 1, "cache": str(folder / "cache")}
    (folder / "config.yaml").write_text(yaml.safe_dump({"models": {"default": model}, "runtime": runtime}))
    return folder / "config.yaml"


def listed(http: httpx.Client) -> dict[str, Any]:
    """All collections by name, without using any of them."""
    answer = http.get("/collections").raise_for_status().json()
    return {collection["name"]: collection for collection in answer["collections"]}


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.05)


def test_it_is_told_and_kept(http: httpx.Client, name: str) -> None:
    created = http.put(f"/collections/{name}", json={"idle_timeout": 600})
    assert created.status_code == 201 and created.json()["idle_timeout"] == 600
    assert http.get(f"/collections/{name}").json()["idle_timeout"] == 600
    assert listed(http)[name]["idle_timeout"] == 600
    for same in ({"idle_timeout": 600}, {"idle_timeout": None}, {}):
        again = http.put(f"/collections/{name}", json=same)
        assert again.status_code == 200 and again.json()["idle_timeout"] == 600
    refused = http.put(f"/collections/{name}", json={"idle_timeout": 60})
    other = problem(refused, 409, "idle_timeout: stored 600, asked 60")
    assert (other["stored"]["idle_timeout"], other["asked"]["idle_timeout"]) == (600, 60)


def test_a_collection_that_stays_does_not_become_temporary(http: httpx.Client, name: str) -> None:
    assert "idle_timeout" not in http.put(f"/collections/{name}").json()
    other = problem(http.put(f"/collections/{name}", json={"idle_timeout": 60}), 409, name)
    assert other["asked"]["idle_timeout"] == 60 and "idle_timeout" not in other["stored"]
    assert "idle_timeout" not in http.get(f"/collections/{name}").json()


@pytest.mark.parametrize("value", [0, -1, 86_401, 1.5, "60", True, [60]])
def test_what_is_no_idle_timeout(http: httpx.Client, name: str, value: object) -> None:
    problem(http.put(f"/collections/{name}", json={"idle_timeout": value}), 422, "idle_timeout")
    assert name not in listed(http)


def test_renamed_it_is_temporary_still_and_a_copy_of_it_stays(http: httpx.Client, name: str) -> None:
    http.put(f"/collections/{name}", json={"idle_timeout": 600})
    http.post(f"/collections/{name}/documents", json={"documents": DOCUMENTS}).raise_for_status()
    copy = http.post(f"/collections/{name}/copy", json={"to": f"{name}.copy"}).json()
    assert copy["count"] == 2 and "idle_timeout" not in copy
    renamed = http.post(f"/collections/{name}/rename", json={"to": f"{name}.new"}).json()
    assert renamed["idle_timeout"] == 600


def test_collections_are_listed_while_others_are_dropped(http: httpx.Client, name: str) -> None:
    def come_and_go(number: int) -> None:
        for _ in range(10):
            http.put(f"/collections/{name}.{number}").raise_for_status()
            http.delete(f"/collections/{name}.{number}").raise_for_status()

    with ThreadPoolExecutor(2) as pool:
        changing = [pool.submit(come_and_go, number) for number in range(2)]
        while not all(each.done() for each in changing):
            listed(http)
        for each in changing:
            each.result()


@pytest.mark.slow
def test_it_is_dropped_once_nobody_uses_it(http: httpx.Client, name: str) -> None:
    """One that is used, each time in another way, outlives one of the same timeout that is only listed."""
    for ending in ("used", "idle", "alias"):
        http.put(f"/collections/{name}.{ending}", json={"idle_timeout": 1}).raise_for_status()
        http.post(f"/collections/{name}.{ending}/documents", json={"documents": DOCUMENTS}).raise_for_status()
    http.put(f"/aliases/{name}.other", json={"collection": f"{name}.alias"}).raise_for_status()
    used = f"/collections/{name}.used"
    ways: list[Callable[[], httpx.Response]] = [
        lambda: http.get(used),
        lambda: http.post(f"{used}/search", json={"query": "music"}),
        lambda: http.post(f"{used}/documents", json={"documents": DOCUMENTS}),
        lambda: http.get(f"{used}/documents/cat"),
        lambda: http.get(f"{used}/export"),
        lambda: http.post(f"{used}/documents/list", json={}),
        lambda: http.post(f"{used}/reindex", json={"force": True}),
    ]
    turn = iter(range(1_000_000))

    def use() -> bool:
        """Use two of them, one by its alias, in the next way; return whether the third is gone."""
        ways[next(turn) % len(ways)]().raise_for_status()
        http.get(f"/collections/{name}.other").raise_for_status()
        return f"{name}.idle" not in listed(http)

    until(use)
    assert {f"{name}.used", f"{name}.alias"} <= listed(http).keys()
    problem(http.get(f"/collections/{name}.idle"), 404, f"{name}.idle")
    until(lambda: not any(left.startswith(name) for left in listed(http)))
    assert f"{name}.other" not in {alias["alias"] for alias in http.get("/aliases").json()["aliases"]}
    assert http.put(f"/collections/{name}.idle", json={}).status_code == 201  # the name is free


@pytest.mark.slow
def test_a_service_that_was_killed_counts_anew_from_its_start(config: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    with Forks() as forks:
        with Forked(forks, config, store) as server:
            for name, timeout in (("short", 2), ("long", 600)):
                path = f"/collections/{name}"
                server.http.put(path, json={"idle_timeout": timeout}).raise_for_status()
                server.http.post(f"{path}/documents", json={"documents": DOCUMENTS}).raise_for_status()
            server.kill()
        with Forked(forks, config, store) as server:
            found = listed(server.http)
            assert {name: (each["idle_timeout"], each["count"]) for name, each in found.items()} == {
                "short": (2, 2),
                "long": (600, 2),
            }
            until(lambda: "short" not in listed(server.http))
            assert listed(server.http)["long"]["count"] == 2
            log = server.log.read_text()
    assert "collection 'short' was not used for its idle timeout, 2 s: it is dropped, with its documents (2)" in log
    engine = EmbeddedEngine(store)
    assert [(left.name, left.idle_timeout, left.count()) for left in engine.list()] == [("long", 600, 2)]
    engine.close()
