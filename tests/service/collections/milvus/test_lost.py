"""A Milvus server that is not there: the service starts, says so, and goes on once it is."""

import subprocess
import sys
from importlib.util import find_spec

import pytest
from fastapi.testclient import TestClient

from service.api import create_app
from service.collections.milvus import MilvusEngine
from service.config import Config
from service.deployment import open_deployment
from service.errors import StoreUnavailable
from tests.support.applications import EXPORTED
from tests.support.servers import ROOT

pytestmark = pytest.mark.skipif(find_spec("pymilvus") is None, reason="there is no pymilvus")
NOWHERE = "http://127.0.0.1:9"


def test_calls_say_where_it_should_be_and_do_not_wait_again():
    engine = MilvusEngine("http://127.0.0.1:9", timeout=0.5)
    for use in (engine.list, lambda: engine.get("notes"), engine.aliases):
        with pytest.raises(StoreUnavailable, match=r"http://127.0.0.1:9 \(store.uri\) cannot be reached") as raised:
            use()
        assert raised.value.retry_after
    engine.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        engine.list()


def test_the_embedded_engine_needs_none_of_it(tmp_path):
    program = (
        "import sys; from pathlib import Path; "
        "from service import deployment; from service.config import StoreConfig; "
        "deployment.open_engine(StoreConfig(path=Path(sys.argv[1]))).close(); "
        "assert 'pymilvus' not in sys.modules and 'service.collections.milvus' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path], check=True, cwd=ROOT, timeout=60)


def test_commands_on_the_file_of_a_store_say_that_there_is_none(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(f"models: {{default: {{encoder: {EXPORTED}}}}}\nstore: {{engine: milvus}}\n")
    for command in (["backup", tmp_path / "copy"], ["restore", tmp_path]):
        ended = subprocess.run(
            [sys.executable, "-m", "service", *command, "--config", config], capture_output=True, text=True, cwd=ROOT
        )
        said = " ".join(ended.stderr.split())
        assert (ended.returncode, "keeps documents in Milvus (store.engine: milvus)" in said) == (2, True), said
    assert not (tmp_path / "copy").exists()


@pytest.mark.slow
def test_a_service_without_its_server_answers_503():
    config = Config.model_validate(
        {
            "models": {"default": {"encoder": str(EXPORTED)}},
            "runtime": {"backend": "torch", "precision": "fp32", "threads": 1},
            "store": {"engine": "milvus", "uri": NOWHERE},
        }
    )
    with open_deployment(config) as served, TestClient(create_app(served)) as http:
        answer = http.get("/collections")
        assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
        assert int(answer.headers["Retry-After"]) > 0
        assert NOWHERE in answer.json()["detail"] and "Traceback" not in answer.text
        assert http.put("/collections/notes").status_code == 503
        assert http.get("/ready").status_code == 503
        metrics = http.get("/metrics")
        assert metrics.status_code == 200 and "millpond_collections" not in metrics.text
        assert http.post("/embed", json={"inputs": "a text"}).status_code == 200
