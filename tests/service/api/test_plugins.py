"""A pooling of another package is served like a built-in one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.problems import problem
from tests.support.servers import Server

CODE = '''
import torch
from pooling.base import WeightedPooler


class Ends(WeightedPooler):
    """Half the first token, half the last."""

    name = "ends"
    summary = "the mean of the first and the last token"
    good_for = "tests"
    weak_at = "everything else"

    def _weights(self, tokens, mask):
        order = torch.arange(mask.shape[1]).expand(mask.shape)
        first = order == torch.where(mask, order, mask.shape[1]).amin(1, keepdim=True)
        last = order == torch.where(mask, order, -1).amax(1, keepdim=True)
        return (first.to(tokens.dtype) + last.to(tokens.dtype)) / 2
'''


PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "pool-{name}"
version = "1.0"
entry-points."millpond.poolers".{name} = "pool_{name}:{class_name}"

[tool.setuptools]
py-modules = ["pool_{name}"]
"""


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A folder into which two packages were installed: one good, one that cannot be imported."""
    folder = tmp_path / "site-packages"
    for name, code in (("ends", CODE), ("broken", "raise RuntimeError('broken on purpose')")):
        project = tmp_path / name
        project.mkdir()
        (project / "pyproject.toml").write_text(PROJECT.format(name=name, class_name=name.title()))
        (project / f"pool_{name}.py").write_text(code)
        install = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-index",
            "--no-deps",
            "--no-build-isolation",
        ]
        subprocess.run([*install, "--target", str(folder), str(project)], check=True, timeout=120)
    return folder


@pytest.mark.slow
def test_a_pooling_of_another_package(tmp_path: Path, packages: Path) -> None:
    config = tmp_path / "plugin.yaml"
    encoder = "encoder: bundled/all-MiniLM-L6-v2"
    config.write_text(f"models:\n  ends: {{{encoder}, pooling: ends}}\n  default: {{{encoder}}}\n")
    paths = os.pathsep.join(filter(None, [str(packages), os.environ.get("PYTHONPATH")]))
    with Server(config, tmp_path / "store", {"PYTHONPATH": paths}) as server:
        info = server.http.get("/info").json()
        assert "ends" in info["poolings"] and "broken" not in info["poolings"]
        assert info["models"]["ends"]["pooling"] == "ends"

        inputs = ["A man is playing a harp.", "short", "a neighbour that is a good deal longer than the others"]
        states = [np.array(text["states"]) for text in server.http.post("/embed_all", json={"inputs": inputs}).json()]
        wanted = np.array([(state[0] + state[-1]) / 2 for state in states])
        wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
        for asked in ({"model": "ends"}, {"pooling": "ends"}, {"pooling": {"strategy": "ends"}}):
            answer = server.http.post("/embed", json={"inputs": inputs, **asked})
            np.testing.assert_allclose(answer.json(), wanted, atol=1e-5)
        both = server.http.post("/embed", json={"inputs": inputs, "pooling": "ends + mean", "normalize": False})
        assert np.array(both.json()).shape == (3, 768)

        refusal = server.http.post("/embed", json={"inputs": "a", "pooling": "broken"})
        problem(refusal, 422, "pool-broken", "broken on purpose")
        assert server.http.put("/collections/c", json={"pooling": "ends"}).json()["pooling"] == "ends"
