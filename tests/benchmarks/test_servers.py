"""Servers to measure: started, watched, ended."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.machine import cpu_seconds, tree
from benchmarks.peers import Infinity, MissingPeer, Txtai
from benchmarks.servers import NotStarted
from benchmarks.service import Millpond


@pytest.mark.slow
def test_a_server_runs_within_its_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLPOND_SERVER__PORT", "1")  # of a deployment here; not of what is measured
    with Millpond("Millpond", tmp_path, runtime={"backend": "torch"}) as server:
        assert server.info["backend"] == "torch"
        vectors = server.embed(["A man is playing a harp.", "Bread is baked."])
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
        assert server.memory > 100
        assert 0 < server.cpu == pytest.approx(cpu_seconds(server.process.pid), abs=1)
        assert server.ready_after > 0
    assert server.process.poll() is not None


@pytest.mark.slow
def test_a_server_that_ends_says_why(tmp_path: Path) -> None:
    with (
        pytest.raises(NotStarted, match="not 'quick'"),
        Millpond("Millpond", tmp_path, runtime={"precision": "quick"}),
    ):
        pass


def test_a_tree_has_its_children(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert {os.getpid(), child.pid} <= set(tree(os.getpid()))
        child.kill()


@pytest.mark.parametrize("peer", [Infinity, Txtai])
def test_a_peer_is_missing_unless_a_variable_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, peer: type[Infinity | Txtai]
) -> None:
    variable = f"MILLPOND_{peer.__name__.upper()}"
    monkeypatch.delenv(variable, raising=False)
    with pytest.raises(MissingPeer, match=f"{variable} is not set"):
        peer(tmp_path)
    monkeypatch.setenv(variable, str(tmp_path))
    with pytest.raises(MissingPeer, match="there is no bin/"):
        peer(tmp_path)
