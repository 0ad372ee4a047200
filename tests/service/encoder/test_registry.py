"""Runtimes are found by name, those of other packages too, and `auto` takes the first by rank that is fit."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from service.config import load_config
from service.embedding.models import Models
from service.errors import CheckpointError, ConfigError
from tests.support.checkpoints import TEXTS, close, embed, plain_bert, served

TOY = '''
import torch
from service.encoder.runtimes.base import Runtime, Unfit
from service.errors import CheckpointError, ConfigError


class Toy(Runtime):
    """A token's state has a one at its id's remainder by five."""

    backend = "toy"
    rank = 9
    merit = "toys come first"
    precision, streams, dim = "fp32", 1, 5

    @classmethod
    def load(cls, source, config):
        if config.threads != "auto":
            raise Unfit(ConfigError("runtime.threads: toy has one. Set threads: auto."), "a toy has one thread")
        return cls()

    def states(self, ids, mask, *, wide=False):
        return torch.nn.functional.one_hot(torch.from_numpy(ids) % 5, 5).float()
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Installs a package that offers the runtime `toy`."""

    def install(code: str = TOY) -> None:
        folder = tmp_path / "site-packages"
        (folder / "toy-1.0.dist-info").mkdir(parents=True)
        (folder / "toy-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
        (folder / "toy-1.0.dist-info" / "entry_points.txt").write_text("[millpond.runtimes]\ntoy = toy_runtime:Toy\n")
        (folder / "toy_runtime.py").write_text(code)
        monkeypatch.syspath_prepend(folder)

    yield install
    sys.modules.pop("toy_runtime", None)


def remainders(models: Models, text: str) -> np.ndarray:
    """The mean of the toy's states, of length one."""
    counts = np.bincount(models.get().encoder.tokenizer.encode([text])[0].ids % 5, minlength=5)
    return (counts / np.linalg.norm(counts)).astype(np.float32)


def test_a_runtime_is_one_class_registered_by_name(tmp_path, package):
    package()
    path = tmp_path / "config.yaml"
    folder = plain_bert(tmp_path / "model")
    model = f"models: {{default: {{encoder: {folder}, pooling: mean, normalize: true}}}}\n"
    path.write_text(model + "runtime: {backend: toy}\n")
    models = Models(load_config(path, env={}))
    try:
        assert (models.get().encoder.runtime.backend, models.get().dim) == ("toy", 5)
        assert models.get().encoder.runtime_reason == "runtime.backend is toy"
        for text, vector in zip(TEXTS, embed(models, TEXTS), strict=True):
            assert close(vector, remainders(models, text))
    finally:
        models.close()
    path.write_text(model + "runtime: {backend: tory}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path, env={})
    choices = "'auto', 'torch', 'openvino' or 'toy'"
    assert str(caught.value) == f"{path}: runtime.backend: input should be {choices}, not 'tory'."


def test_auto_takes_the_first_by_rank_that_is_fit(tmp_path, package):
    package()
    folder = plain_bert(tmp_path / "model")
    with served(folder, pooling="mean", runtime={"backend": "auto", "threads": "auto"}) as models:
        assert models.get().encoder.runtime.backend == "toy"
        assert models.get().encoder.runtime_reason == "toys come first"
    with served(folder, pooling="mean", runtime={"backend": "auto", "threads": 1}) as models:
        assert models.get().encoder.runtime.backend in ("openvino", "torch")
        assert models.get().encoder.runtime_reason.startswith(("a toy has one thread", "OpenVINO is not installed"))
    with (
        pytest.raises(ConfigError, match=r"runtime\.threads: toy has one\. Set threads: auto\."),
        served(folder, pooling="mean", runtime={"backend": "toy", "threads": 1}),
    ):
        pass


def test_a_runtime_that_cannot_be_imported_is_named(tmp_path, package):
    package("raise RuntimeError('broken on purpose')")
    folder = plain_bert(tmp_path / "model")
    for backend in ("toy", "auto"):
        with (
            pytest.raises(ConfigError, match=r"backend: toy cannot be used \(RuntimeError: broken on purpose"),
            served(folder, pooling="mean", runtime={"backend": backend}),
        ):
            pass
    with served(folder, pooling="mean"):  # which names PyTorch
        pass


def test_a_built_in_name_is_not_taken_over(tmp_path, package):
    package()
    entry_points = tmp_path / "site-packages" / "toy-1.0.dist-info" / "entry_points.txt"
    entry_points.write_text("[millpond.runtimes]\ntorch = toy_runtime:Toy\n")
    with served(plain_bert(tmp_path / "model"), pooling="mean") as models:
        assert type(models.get().encoder.runtime).__name__ == "TorchRuntime"


@pytest.mark.slow
def test_a_runtime_whose_vectors_cannot_be_trusted(tmp_path, package):
    """Under `auto` another one takes its place; by name it is refused."""
    package(TOY.replace("5).float()", "5).float() + wide * mask[..., None]"))
    folder = plain_bert(tmp_path / "model")
    cache = str(tmp_path / "cache")
    runtime = {"threads": "auto", "cache": cache}
    with served(folder, pooling="mean", runtime={**runtime, "backend": "auto"}) as models:
        assert models.get().encoder.runtime.backend in ("openvino", "torch")
    stated = "on toy in fp32, a text has another vector in a pass that takes all cores"
    by_name = served(folder, pooling="mean", runtime={**runtime, "backend": "toy"})
    with pytest.raises(CheckpointError, match=stated), by_name:
        pass
