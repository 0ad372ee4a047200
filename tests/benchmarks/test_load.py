"""The clients that make loads, against the real service."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from benchmarks.beside import Paced
from benchmarks.encoder import MINILM
from benchmarks.load import Client, Load, LoadFailed, Request, percentiles
from benchmarks.poisson import carry_out
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


def test_what_is_refused_comes_back_as_it_is_told(tmp_path: Path) -> None:
    """Passes wait, so that a burst is more than its queue takes on any machine."""
    config = tmp_path / "config.yaml"
    limits = {"max_batch_tokens": 128, "max_queued_tokens": 1024}
    config.write_text(yaml.safe_dump({"models": {"default": {"encoder": MINILM}}, "batching": limits}))
    body = json.dumps({"input": TEXTS * 3})
    burst = [(0.01 * turn, Request("POST", "/v1/embeddings", body, 30)) for turn in range(16)]
    with Paced(config, tmp_path / "store") as server:
        found = carry_out(server.port, burst, patience=60)
        assert all(one.done is not None and one.done > one.sent for one in found)
        back = [one for one in found if one.refusals]
        assert back and all(one.sent >= one.refusals[-1] + 1 for one in back)
        assert all(one.sent == at for one, (at, _) in zip(found, burst, strict=True) if not one.refusals)
        gone = [one for one in carry_out(server.port, burst, patience=0) if one.done is None]
        assert gone and all(len(one.refusals) == 1 for one in gone)
