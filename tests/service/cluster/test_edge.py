"""The edge and replicas of a cluster, without Ray: what clients see is what one machine gives them."""

from __future__ import annotations

import asyncio
import gzip

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.access import digest
from service.cluster.edge import Edge
from service.cluster.settings import config_of_replica, cpus_of_own_cluster, require_clusterable
from service.config import Config
from service.errors import ConfigError
from tests.support.applications import EXPORTED, application, ask, tiny_deployment
from tests.support.fleets import LocalFleet
from tests.support.problems import problem

TIMES = {"x-request-id", "x-compute-time", "x-total-time", "x-tokenization-time", "x-queue-time", "x-inference-time"}
CONFIG = {
    "models": {"default": {"encoder": str(EXPORTED)}},
    "runtime": {"backend": "torch", "precision": "fp32", "threads": 1},
}


@pytest.fixture(scope="module")
def fleet():
    fleet = LocalFleet(Config.model_validate(CONFIG))
    yield fleet
    fleet.end()


@pytest.fixture(scope="module")
def edge(fleet):
    return Edge(fleet)


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    with tiny_deployment(tmp_path_factory.mktemp("machine") / "store") as served:
        yield application(served)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/embed", {"inputs": ["a text", "another text of more words"]}),
        ("POST", "/embed", {"inputs": "one", "pooling": "max", "encoding_format": "base64"}),
        ("POST", "/embed", {"inputs": ["word " * 500], "truncate": True}),
        ("POST", "/embed", {"inputs": ["word " * 500]}),
        ("POST", "/embed", {"inputs": 3}),
        ("POST", "/embed", {"inputs": "a", "poolin": "max"}),
        ("POST", "/embed", {"inputs": "a", "model": "other"}),
        ("POST", "/embed?x=1", b"{no json"),
        ("POST", "/embed", b""),
        ("POST", "/embed_all", {"inputs": "a text"}),
        ("POST", "/embed_spans", {"inputs": "a text of words", "spans": [[0, 6], [7, 15]]}),
        ("POST", "/v1/embeddings", {"input": "a text", "model": "default"}),
        ("POST", "/v1/embeddings", {"input": 3}),
        ("POST", "/similarity", {"inputs": {"source_sentence": "a", "sentences": ["b", "c"]}}),
        ("POST", "/tokenize", {"inputs": "a text"}),
        ("POST", "/explain", {"text": "a text", "other": "another"}),
        ("POST", "/rerank", {"query": "a", "texts": ["b"]}),
        ("GET", "/v1/models/default", None),
        ("GET", "/v1/models/none", None),
        ("GET", "/health", None),
        ("GET", "/ready", None),
        ("HEAD", "/ready", None),
        ("OPTIONS", "/embed", None),
        ("GET", "/embed", None),
        ("GET", "/nowhere", None),
        ("DELETE", "/embed", None),
        ("GET", "/collections", None),
        ("GET", "/openapi.json", None),
        ("GET", "/docs", None),
        ("GET", "/lab", None),
        ("POST", "/admin/reload", None),
    ],
)
def test_an_edge_answers_as_one_machine(edge, machine, method, path, body):
    sent = {"content": body, "headers": {"content-type": "application/json"}} if isinstance(body, bytes) else {}
    if isinstance(body, dict):
        sent = {"json": body}
    answer, expected = (ask(app, method, path, **sent) for app in (edge, machine))
    assert answer.status_code == expected.status_code
    assert answer.headers.keys() == expected.headers.keys()
    for name in answer.headers.keys() - TIMES:
        assert answer.headers[name] == expected.headers[name], name
    assert answer.content == expected.content


def test_compressed_bodies_are_read_at_the_edge(edge, fleet):
    content = gzip.compress(b'{"inputs": "a text"}')
    headers = {"content-encoding": "gzip", "content-type": "application/json"}
    assert ask(edge, "POST", "/embed", content=content, headers=headers).status_code == 200
    assert fleet.asked[-1].body == b'{"inputs": "a text"}'


def test_whoever_asks_for_documents_is_told_that_there_is_no_store(edge):
    for method, path, body in (
        ("PUT", "/collections/a", {}),
        ("GET", "/collections/a", None),
        ("POST", "/collections/a/documents", {"documents": [{"id": "1", "text": "a"}]}),
        ("POST", "/collections/a/search", {"query": "a"}),
        ("DELETE", "/collections/a", None),
        ("POST", "/compact", None),
    ):
        told = problem(ask(edge, method, path, **({} if body is None else {"json": body})), 501, "share no store")
        assert told["code"] == "no_store"


def test_keys_are_checked_and_their_tokens_counted_at_the_edge(fleet):
    keys = {
        "embeds": {"hash": digest("embeds"), "scopes": ["embed"], "tokens_per_minute": 10},
        "searches": {"hash": digest("searches"), "scopes": ["search"]},
    }
    config = Config.model_validate(CONFIG | {"access": {"keys": keys}})
    few = LocalFleet(config, 2)
    try:
        app = Edge(few)
        body = {"inputs": "a text of more than ten words, however one counts the words of it"}
        assert ask(app, "POST", "/embed", json=body).status_code == 401
        assert ask(app, "POST", "/embed", "nobody's", json=body).status_code == 401
        assert ask(app, "POST", "/embed", "searches", json=body).status_code == 403
        assert not few.asked
        assert ask(app, "POST", "/embed", "embeds", json=body).status_code == 200
        problem(ask(app, "POST", "/embed", "embeds", json=body), 429, "has sent its 10 tokens a minute")
        assert len(few.asked) == 1
        assert all(name != b"authorization" for name, _ in few.asked[0].headers)
    finally:
        few.end()


def test_metrics_tell_of_requests_once_and_of_each_replica(edge):
    for _ in range(2):
        ask(edge, "POST", "/embed", json={"inputs": ["a", "b"]})
    told = {each.name: each for each in text_string_to_metric_families(ask(edge, "GET", "/metrics").text)}
    vectors = told["millpond_vectors"].samples
    assert {sample.labels["replica"] for sample in vectors} == {"r0", "r1"}
    assert {sample.labels["replica"] for sample in told["millpond_queue_tokens"].samples} == {"r0", "r1"}
    phases = [s for s in told["millpond_phase_seconds"].samples if s.name.endswith("count")]
    assert next(s.value for s in phases if s.labels["phase"] == "inference") >= 2
    assert not [s for s in told["millpond_http_requests"].samples if "replica" in s.labels]


def test_a_request_has_its_deadline_at_the_edge_and_in_a_replica(edge, fleet):
    headers = {"x-request-timeout": "0.000001"}
    problem(ask(edge, "POST", "/embed", json={"inputs": "a"}, headers=headers), 504, "not done within")
    before = len(fleet.asked)
    long = {"inputs": ["word " * 40] * 3000, "truncate": True}
    problem(ask(edge, "POST", "/embed", json=long, headers={"x-request-timeout": "0.1"}), 504, "not done within")
    assert len(fleet.asked) == before + 1


def test_overload_is_refused_as_on_one_machine():
    config = Config.model_validate(CONFIG | {"batching": {"max_queued_tokens": 200}})
    few = LocalFleet(config, 1)
    app = Edge(few)

    async def all_at_once():
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as http:
            body = {"inputs": ["some words of a text"] * 64}
            return await asyncio.gather(*(http.post("/embed", json=body) for _ in range(20)))

    try:
        answers = asyncio.run(all_at_once())
    finally:
        few.end()
    refused = [answer for answer in answers if answer.status_code != 200]
    assert 0 < len(refused) < 20
    for answer in refused:
        problem(answer, 503, "queue is full", "batching.max_queued_tokens", "again")
        assert int(answer.headers["retry-after"]) >= 1


def test_a_replica_knows_neither_keys_nor_addresses():
    access = {"keys": {"a": {"hash": digest("a"), "scopes": ["embed"]}}}
    server = {"port": 9, "root_path": "/pond", "allowed_hosts": ["a.example"], "max_texts": 7}
    config = Config.model_validate(CONFIG | {"access": access, "server": server, "tls": {"password": "secret"}})
    found = config_of_replica(config)
    assert digest("a") not in found.model_dump_json()
    assert "secret" not in found.model_dump_json()
    assert (found.server.port, found.server.root_path, found.server.allowed_hosts) == (8000, "", None)
    assert found.server.max_texts == 7


@pytest.mark.parametrize(("cpus", "threads"), [(1.0, 1), (0.5, 1), (3.0, 3), (2.9, 2)])
def test_a_replica_computes_with_the_threads_that_its_cpus_are(cpus, threads):
    config = Config.model_validate(CONFIG | {"runtime": {}, "cluster": {"replica_cpus": cpus, "replicas": 2}})
    assert config_of_replica(config).runtime.threads == threads
    assert cpus_of_own_cluster(config) >= 4 * cpus


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"store": {"path": "data"}}, "replicas cannot share"),
        ({"cluster": {"replicas": 3, "max_replicas": 2}}, "cluster.max_replicas is 2, below cluster.replicas"),
    ],
)
def test_what_replicas_cannot_serve_is_refused_in_one_sentence(sections, said):
    with pytest.raises(ConfigError, match=said):
        require_clusterable(Config.model_validate(CONFIG | sections))
