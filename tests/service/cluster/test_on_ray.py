"""`millpond cluster serve`: replicas on Ray Serve that die, are replaced, have too much to do, and end."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest

from tests.support.applications import EXPORTED
from tests.support.clusters import ClusterServer, Load
from tests.support.problems import problem

pytest.importorskip(
    "ray.serve", reason="Ray Serve is not installed: pip install 'millpond[ray]'", exc_type=ImportError
)

pytestmark = pytest.mark.peers

LONG = [
    {"inputs": [f"text {number} of {place} " + "words " * 20 for place in range(1500)], "truncate": True}
    for number in range(3)
]
"""Each takes a replica some tenths of a second."""
MORE = {"inputs": LONG[0]["inputs"] * 4, "truncate": True}
BODIES = [{"inputs": [f"text {number} of {place} in batch" for place in range(32)]} for number in range(5)]


def config(*, pooling="mean", replicas=2, **sections):
    return {
        "models": {"default": {"encoder": str(EXPORTED), "pooling": pooling}},
        "runtime": {"backend": "torch", "precision": "fp32", "threads": 1},
        "cluster": {"replicas": replicas, **sections.pop("cluster", {})},
        "batching": {"max_queued_seconds": 600.0, "max_queued_tokens": 10_000_000},  # nothing is refused
        **sections,
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with ClusterServer(tmp_path_factory.mktemp("cluster"), config()) as started:
        yield started
    assert not [
        each for each in psutil.process_iter(["cmdline"]) if str(started.config) in (each.info["cmdline"] or [])
    ]


def vectors(answer):
    return answer.headers["x-fingerprint"], answer.content


def test_a_replica_that_is_killed_fails_no_request(server):
    assert len(server.replicas()) == 2
    with Load(server.url, LONG, clients=6) as load:
        for _ in range(2):
            load.wait(10)
            server.kill_a_replica()
            end = time.monotonic() + 60
            while len(server.replicas()) < 2 and time.monotonic() < end:
                time.sleep(0.5)
        load.wait(30)
    assert (load.failures, load.statuses.keys()) == ([], {200}), load.statuses
    assert len(server.replicas()) == 2
    assert "is sent to another replica" in server.log.read_text()


def test_a_change_of_pooling_fails_no_request_and_mixes_none(server):
    with Load(server.url, BODIES) as load:
        load.wait(100)
        before = {place: vectors(answer) for place, answer in list(load.answers)}
        server.write(config(pooling="max"))
        told = server.http.post("/admin/reload").json()
        assert told == {"changed": ["models"], "restart": [], "keys": []}
        changed = len(load.answers)
        load.wait(200)
    after = {place: vectors(answer) for place, answer in load.answers[-100:]}
    assert before.keys() == after.keys() == set(range(len(BODIES)))
    old, new = ({fingerprint for fingerprint, _ in each.values()} for each in (before, after))
    assert len(old) == len(new) == 1 and old != new
    assert (load.failures, load.statuses.keys()) == ([], {200}), load.statuses
    tolerance = 1e-6
    for place, answer in load.answers:  # each whole answer is of the pooling that it names
        of = before if {answer.headers["x-fingerprint"]} == old else after
        expected = httpx.Response(200, content=of[place][1]).json()
        for got, wanted in zip(answer.json(), expected, strict=True):
            assert got == pytest.approx(wanted, abs=tolerance)
    poolings = [{answer.headers["x-fingerprint"]} for _, answer in load.answers]
    assert poolings.count(old) > 100 and poolings[changed + 50 :].count(old) == 0
    server.write(config())
    assert server.http.post("/admin/reload").status_code == 200


def test_a_config_that_no_replica_can_serve_changes_nothing(server):
    fingerprint = server.http.post("/embed", json=BODIES[0]).headers["x-fingerprint"]
    with Load(server.url, BODIES, clients=1) as load:
        server.write(config(pooling="nonsense"))
        problem(server.http.post("/admin/reload"), 409, "models.default.pooling: unknown pooling 'nonsense'")
        server.write(config(store={"path": "data"}))
        problem(server.http.post("/admin/reload"), 409, "replicas cannot share")
        load.wait(20)
    assert (load.failures, load.statuses.keys()) == ([], {200})
    assert {answer.headers["x-fingerprint"] for _, answer in load.answers} == {fingerprint}
    server.write(config())


def test_what_a_client_left_is_computed_no_more(server):
    body = {"inputs": ["word " * 20] * 12000, "truncate": True}
    with (
        httpx.Client(base_url=server.url, timeout=0.3, trust_env=False) as http,
        pytest.raises(httpx.TimeoutException),
    ):
        http.post("/embed", json=body, params={"truncate": True})
    end = time.monotonic() + 10
    while (waiting := queued(server)) and time.monotonic() < end:
        time.sleep(0.2)
    assert waiting == 0


def queued(server):
    lines = server.http.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("millpond_queue_tokens{"))


def test_sigterm_lets_what_has_begun_finish(tmp_path):
    with ClusterServer(tmp_path, config()) as server, ThreadPoolExecutor(6) as clients:
        processes = server.processes()
        begun = [clients.submit(httpx.post, f"{server.url}/embed", json=MORE, timeout=120) for _ in range(6)]
        while not queued(server):
            time.sleep(0.01)
        time.sleep(0.5)  # until the last has begun as well
        assert not any(each.done() for each in begun)
        server.process.terminate()
        assert [each.result().status_code for each in begun] == [200] * 6
        assert server.process.wait(30) == 0
        with pytest.raises(httpx.TransportError):
            server.http.get("/health")
        _, alive = psutil.wait_procs(processes, 20)
        assert alive == []


def test_too_much_at_once_is_refused_and_more_replicas_come(tmp_path):
    cluster = {"max_replicas": 2, "queued_tokens": 500}
    few = config(replicas=1, cluster=cluster, batching={"max_queued_tokens": 20_000})
    bodies = [{"inputs": ["some words of a text that is long enough to take a while"] * 200}]
    with ClusterServer(tmp_path, few) as server, Load(server.url, bodies, clients=24) as load:
        assert len(server.replicas()) == 1
        load.wait(100)
        end = time.monotonic() + 90
        while len(server.replicas()) < 2 and time.monotonic() < end:
            time.sleep(0.5)
        assert len(server.replicas()) == 2
    assert load.failures == [] and load.statuses.keys() == {200, 503}, load.statuses
    for _, answer in load.answers:
        if answer.status_code == 503:
            problem(answer, 503, "the queue is full", "again")
            assert int(answer.headers["retry-after"]) >= 1


def test_the_last_replica_is_waited_for(tmp_path):
    with ClusterServer(tmp_path, config(replicas=1)) as server, Load(server.url, BODIES, clients=2) as load:
        load.wait(50)
        os.kill(server.replicas()[0].pid, signal.SIGKILL)
        load.wait(50, 60)
    assert (load.failures, load.statuses.keys()) == ([], {200}), load.statuses
