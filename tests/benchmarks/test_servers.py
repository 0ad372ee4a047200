"""Servers to measure: started, watched, ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import uvloop

from benchmarks import ceiling, machine, soak
from benchmarks.encoder import MINILM, batches, load, token_ids
from benchmarks.load import Client, Outcome
from benchmarks.millpond import Millpond, millponds_in
from benchmarks.peers import MissingPeer
from benchmarks.peers.infinity import FP32, Infinity
from benchmarks.peers.txtai import Txtai
from benchmarks.servers import Field, Target, field_of
from benchmarks.throughput import Kind, Row


@pytest.mark.slow
def test_a_server_runs_within_its_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLPOND_SERVER__PORT", "1")  # of a deployment here; not of what is measured
    server = Millpond("Millpond", backend="torch")
    with server.serving():
        assert server.info["backend"] == "torch"
        texts = ["A man is playing a harp.", "Bread is baked."]
        vectors = server.embed(texts)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(server.vectors(texts), vectors, atol=1e-5)
        assert server.memory > 100
        assert server.running.ready_after > 0
    assert server.running.process.poll() is not None


@pytest.fixture(scope="module")
def field():
    """Millpond, and two that cannot run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MILLPOND_TXTAI", raising=False)
        with field_of(
            [Millpond("a misspelt one", precision="quick"), Millpond("M", backend="torch"), Txtai()]
        ) as found:
            yield found


@pytest.mark.slow
def test_what_cannot_run_is_left_out_and_says_why(field: Field) -> None:
    assert [server.name for server in field.servers] == ["M"]
    misspelt, txtai = field.left_out
    assert misspelt.startswith("a misspelt one is left out: ") and "not 'quick'" in misspelt
    assert txtai.startswith("txtai is left out: MILLPOND_TXTAI is not set")


@pytest.mark.slow
def test_documents_are_indexed_anew_and_found(field: Field) -> None:
    (server,) = millponds_in(field)
    with Client() as client:
        for texts in (["Bread is baked."], ["A man plays a harp.", "Rain falls.", "Bread is baked."]):
            documents = [{"id": text[0], "text": text} for text in texts]
            assert server.index(client, documents, each=2, clients=2) > 0
    assert server.found(server.search_request("A man plays a harp.", 2))[0] == "A"


@pytest.mark.slow
def test_a_load_costs_its_server_processor_time_and_memory(field: Field) -> None:
    (server,) = field.servers
    with Client() as client:
        measured = server.measure(client, server.load(["Bread is baked.", "Rain falls."] * 20, clients=2, each=4))
    assert measured.outcome.texts == 40
    assert measured.cpu_ms > 0
    assert 100 < measured.usage.resident <= measured.usage.peak * 1.01


@pytest.mark.slow
def test_a_row_sends_no_text_twice_and_the_same_to_all(field: Field) -> None:
    (server,) = field.servers
    rows = [Row(server, Kind("STS-B", 2, 8), pace=40.0) for _ in range(2)]
    first, second = ([json.loads(request.body)["input"] for request in rows[0].load(1.0).requests] for _ in range(2))
    assert [len(texts) for texts in first] == [8] * 5
    sent = [text for request in (*first, *second) for text in request]
    assert len(set(sent)) == len(sent) == 80
    assert [json.loads(request.body)["input"] for request in rows[1].load(1.0).requests] == first


@pytest.mark.slow
def test_a_soak_samples_until_all_is_answered(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "EVERY", 0.2)
    (server,) = millponds_in(field)
    found = soak.Soak()
    uvloop.run(soak.fill(found, server, soak.requests(server, texts=3, words=5), seconds=1))
    assert found.answers
    assert len(found.memory) >= 3
    assert min(found.memory) > 100
    assert len(found.p99()) == len(found.memory)


@pytest.mark.slow
def test_the_ceiling_computes_what_the_service_does() -> None:
    texts = ["Bread is baked.", "A man is playing a harp while it rains.", "Rain."]
    graph = ceiling.compiled("fp32")
    _, runtime = load(MINILM, backend="torch", precision="fp32")
    ((_, ids, mask),) = batches(token_ids(texts))
    found = torch.from_numpy(graph([ids, mask.astype(np.int64)])[0])
    counted = torch.from_numpy(mask)
    torch.testing.assert_close(found[counted], runtime.states(ids, mask)[counted], atol=1e-4, rtol=0)


@pytest.mark.slow
def test_a_ceiling_has_what_each_part_costs() -> None:
    cost = ceiling.costs("fp32", {"a": ["Bread is baked.", "Rain falls."]})["a"]
    assert min(cost) > 0
    alone = cost.load(1, Outcome(1.0, 10, cpu=0.01))
    assert alone.cpu_ms == pytest.approx(cost.encoder_cpu + cost.tokenizer + ceiling.HTTP_MS)
    assert alone.outcome.rate < cost.load(32, Outcome(1.0, 10, cpu=0.01)).outcome.rate < 1000 / cost.encoder


@pytest.mark.slow
def test_nothing_to_compare_is_an_end() -> None:
    servers = field_of([Millpond("x", precision="quick")])
    with pytest.raises(SystemExit, match=r"no server starts:\nx is left out: .*not 'quick'"), servers:
        pass


def test_a_limit_holds_for_what_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_known", lambda: ["avx2", "avx512f", "amx_bf16"])
    for name in ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "FAISS_OPT_LEVEL"):
        monkeypatch.setenv(name, "")
    assert machine.has_bf16()
    assert machine.processor().endswith(" cores, amx_bf16")
    said = machine.limit_to_avx2()
    assert said.startswith("not used of this processor: avx512f, amx_bf16 (ONEDNN_MAX_CPU_ISA=AVX2 ")
    assert not machine.has_bf16()
    assert machine.processor().endswith(" cores, limited to avx2")
    assert os.environ["FAISS_OPT_LEVEL"] == os.environ["ATEN_CPU_CAPABILITY"] == "avx2"


def test_a_limit_does_nothing_where_there_is_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_known", lambda: ["avx2"])
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "")
    assert "changes nothing" in machine.limit_to_avx2()
    assert not os.environ["ONEDNN_MAX_CPU_ISA"]


def test_use_is_of_the_block_alone() -> None:
    with machine.usage_of(os.getpid()) as usage:
        held = np.ones(40_000_000 // 8)
    assert usage.cpu >= 0
    assert usage.peak >= usage.resident * 0.99
    del held
    with machine.usage_of(os.getpid()) as after:
        pass
    assert after.peak < usage.peak


def test_a_tree_has_its_children() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert {os.getpid(), child.pid} <= {process.pid for process in machine.tree(os.getpid())}
        child.kill()
    assert machine.resident_mb(child.pid) == 0


@pytest.mark.parametrize("peer", [Infinity(FP32), Txtai()])
def test_a_peer_is_missing_unless_a_variable_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, peer: Target
) -> None:
    variable = f"MILLPOND_{type(peer).__name__.upper()}"
    monkeypatch.delenv(variable, raising=False)
    with pytest.raises(MissingPeer, match=f"{variable} is not set"), peer.serving():
        pass
    monkeypatch.setenv(variable, str(tmp_path))
    with pytest.raises(MissingPeer, match="there is no bin/"), peer.serving():
        pass
