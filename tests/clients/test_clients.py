"""Other projects' clients against a real service: the calls of `calls.py`, each unchanged or with one setting.

The clients are in an environment of their own: that of `MILLPOND_CLIENTS`, or the one that `make clients` makes.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.clients.calls import CALLS, Call
from tests.support.servers import ROOT, Server

TEXTS = ["A man is playing a harp.", "pooling", "naïve 日本 👍", "A cat sleeps in the sun."]
LONG = ["A man is playing a harp.", "word " * 300]
ENCODING = "cl100k_base"


@pytest.fixture(scope="session")
def python() -> Path:
    """The interpreter of the clients' environment."""
    found = Path(os.environ.get("MILLPOND_CLIENTS", ROOT / ".venv-clients")) / "bin" / "python"
    if not found.exists():
        pytest.skip("the clients are not installed; run `make clients`, or set MILLPOND_CLIENTS to their environment")
    return found


@pytest.fixture(scope="session")
def vocabulary(python: Path) -> str:
    """The folder of tiktoken's vocabulary, of which litellm brings a copy."""
    program = "import importlib.util as i; print(i.find_spec('litellm').submodule_search_locations[0])"
    package = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
    return str(Path(package) / "litellm_core_utils" / "tokenizers")


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The service as it is started without further settings."""
    with Server(ROOT / "configs" / "mean.yaml", tmp_path_factory.mktemp("plain") / "store") as server:
        yield server


@pytest.fixture(scope="session")
def cutting(tmp_path_factory: pytest.TempPathFactory, vocabulary: str) -> Iterator[Server]:
    """A service that cuts long texts and takes the ids of an encoding."""
    env = {"MILLPOND_MODELS__DEFAULT__TRUNCATE": "true"}
    if find_spec("tiktoken") is not None:
        env |= {"MILLPOND_SERVER__TOKEN_IDS": ENCODING, "TIKTOKEN_CACHE_DIR": vocabulary}
    with Server(ROOT / "configs" / "mean.yaml", tmp_path_factory.mktemp("cutting") / "store", env) as server:
        yield server


@pytest.fixture(scope="session")
def answers(python: Path, vocabulary: str):
    """What the calls of a client give for some texts, in the order of `CALLS`."""
    quiet = {"ANONYMIZED_TELEMETRY": "False", "HAYSTACK_TELEMETRY_ENABLED": "False", "DO_NOT_TRACK": "1"}
    quiet |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    env = {**os.environ, **quiet, "TIKTOKEN_CACHE_DIR": vocabulary}
    env.pop("PYTHONPATH", None)

    @cache
    def answers(client: str, url: str, texts: tuple[str, ...]) -> list[dict[str, Any]]:
        done = subprocess.run(
            [python, Path(__file__).with_name("calls.py"), client, url],
            input=json.dumps(texts),
            env=env,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout)

    return answers


def expected(server: Server, call: Call, texts: list[str]) -> np.ndarray:
    body = {"inputs": texts, "truncate": True, "normalize": call.normalize}
    vectors = np.array(server.http.post("/embed", json=body).json())
    return (vectors @ vectors[0])[None] if "similarity" in call.name else vectors


def name(call: Call) -> str:
    return " ".join(filter(None, (call.client, call.name, call.setting)))


every_call = pytest.mark.parametrize("call", CALLS, ids=name)


def check(answers: Any, server: Server, call: Call, texts: list[str]) -> None:
    of_client = [each for each in CALLS if each.client == call.client]
    found = answers(call.client, server.url, tuple(texts))[of_client.index(call)]
    assert "error" not in found, found["error"]
    np.testing.assert_allclose(found["vectors"], expected(server, call, texts), atol=1e-5)


@pytest.mark.peers
@every_call
def test_a_client_as_it_is(answers: Any, plain: Server, cutting: Server, call: Call) -> None:
    if call.server:
        pytest.importorskip("tiktoken")
    check(answers, cutting if call.server else plain, call, TEXTS)


@pytest.mark.peers
@every_call
def test_a_long_text_among_others(answers: Any, cutting: Server, call: Call) -> None:
    """Where the model cuts them, since most clients cannot ask for it."""
    if call.server:
        pytest.importorskip("tiktoken")
    check(answers, cutting, call, LONG)


@pytest.mark.peers
@pytest.mark.parametrize("call", [each for each in CALLS if each.server], ids=name)
def test_ids_of_another_tokenizer_are_refused_in_words(answers: Any, plain: Server, call: Call) -> None:
    of_client = [each for each in CALLS if each.client == call.client]
    found = answers(call.client, plain.url, tuple(TEXTS))[of_client.index(call)]
    for word in ("server.token_ids", "check_embedding_ctx_length=False", ENCODING):
        assert word in found["error"]


def test_the_documentation_lists_the_calls() -> None:
    page = (ROOT / "docs" / "coming-from.md").read_text()
    table = page.split("| client | call |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    told = [tuple(cell.strip().strip("`") for cell in row.strip("|").split("|"))[:3] for row in table]
    assert told == [(call.client, call.name, call.setting or call.server or "none") for call in CALLS]
