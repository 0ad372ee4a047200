"""Servers to measure: started, watched, ended."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import machine
from benchmarks.load import Client
from benchmarks.millpond import Millpond, millponds_in
from benchmarks.peers import MissingPeer
from benchmarks.peers.infinity import FP32, Infinity
from benchmarks.peers.txtai import Txtai
from benchmarks.servers import Field, Target, field_of


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
        assert machine.cpu_seconds(server.running.process.pid) > 0
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
def test_nothing_to_compare_is_an_end() -> None:
    servers = field_of([Millpond("x", precision="quick")])
    with pytest.raises(SystemExit, match=r"no server starts:\nx is left out: .*not 'quick'"), servers:
        pass


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
