"""The client that makes the load, against the real service."""

from __future__ import annotations

import json

import pytest

from benchmarks.load import Client, Load, LoadFailed, Request, percentiles
from tests.support.servers import Server

pytestmark = pytest.mark.slow

TEXTS = [f"A man is playing harp number {number}." for number in range(10)]


@pytest.fixture(scope="module")
def client():
    with Client() as client:
        yield client


def requests(model: str, each: int) -> list[Request]:
    return [
        Request("POST", "/v1/embeddings", json.dumps({"model": model, "input": some}), len(some))
        for some in (TEXTS[start : start + each] for start in range(0, len(TEXTS), each))
    ]


@pytest.mark.parametrize(("clients", "each"), [(1, 1), (3, 4), (20, 1)])
def test_every_request_is_sent_once(side_by_side: Server, client: Client, clients: int, each: int) -> None:
    sent = requests("mean", each)
    outcome = client.run(Load(side_by_side.port, sent, clients, vectors=True))
    assert outcome.texts == len(TEXTS)
    assert len(outcome.latencies) == len(sent)
    found = percentiles([outcome])
    assert 0 < found["p50"][0] <= found["p99"][0] <= found["longest"][0] <= outcome.seconds * 1000


def test_for_some_time_requests_are_sent_again(side_by_side: Server, client: Client) -> None:
    outcome = client.run(Load(side_by_side.port, requests("mean", 10), 2, vectors=True, seconds=0.5))
    assert outcome.seconds >= 0.5
    assert outcome.texts == 10 * len(outcome.latencies) > 20


def test_a_refusal_fails_the_load_and_not_the_client(side_by_side: Server, client: Client) -> None:
    with pytest.raises(LoadFailed, match="no model is named 'meen'"):
        client.run(Load(side_by_side.port, requests("meen", 5), 2))
    assert client.run(Load(side_by_side.port, requests("mean", 5), 2, vectors=True)).texts == len(TEXTS)


def test_vectors_are_counted(side_by_side: Server, client: Client) -> None:
    more = [Request("POST", "/embed", json.dumps({"inputs": TEXTS, "model": "mean"}), len(TEXTS) + 1)]
    with pytest.raises(LoadFailed, match="10 vectors came back for 11 texts"):
        client.run(Load(side_by_side.port, more, 1, vectors=True))
