"""`GET /doctor`: the served models examined beside their other requests."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import torch
import yaml
from jsonschema import Draft202012Validator
from sentence_transformers.sentence_transformer.modules import Dense, Normalize

from tests.support import checkpoints
from tests.support.checkpoints import DIM, edit
from tests.support.problems import problem
from tests.support.servers import Server

PROMPTS = {"query": "query: ", "document": "passage: "}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A folder served as it declares, the same with everything overridden, and another one."""
    at = tmp_path_factory.mktemp("doctor")
    torch.manual_seed(7)
    dense = Dense(DIM, DIM, activation_function=torch.nn.Tanh())
    bert = checkpoints.plain_bert(at / "bert")
    folder = checkpoints.sentence_transformer(bert, at / "model", "cls", dense, Normalize(), prompts=PROMPTS)
    edit(folder / "config_sentence_transformers.json", default_prompt_name="query")
    overridden = {"pooling": "mean", "normalize": False, "prompts": {}}
    models = {
        "default": {"encoder": str(folder)},
        "broken": {"encoder": str(folder), **overridden},
        "other": {"encoder": str(bert), "pooling": "mean"},
    }
    config = at / "deployment.yaml"
    config.write_text(yaml.safe_dump({"models": models, "runtime": {"backend": "torch"}}, sort_keys=False))
    with Server(config, at / "store") as running:
        yield running


@pytest.mark.slow
def test_a_deadline_ends_the_wait_and_not_the_report(server: Server) -> None:
    asked = {"params": {"model": "broken"}}
    answer = server.http.get("/doctor", headers={"x-request-timeout": "0.01"}, **asked)
    assert problem(answer, 504, "0.01 s")["code"] == "deadline_exceeded"
    assert server.http.get("/doctor", **asked).status_code == 200


@pytest.mark.slow
def test_other_requests_go_on(server: Server) -> None:
    def ask() -> httpx.Response:
        return httpx.get(f"{server.url}/doctor", params={"model": "other"}, timeout=280)

    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(ask), pool.submit(ask)]
        answered = 0
        while not all(each.done() for each in asked):
            assert server.http.post("/embed", json={"inputs": "a mill"}).status_code == 200
            answered += 1
            time.sleep(0.05)  # what the report is compared with runs where nothing else wants to
    assert answered > 5  # loading that takes seconds
    first, second = (each.result() for each in asked)
    assert first.status_code == 200 and first.json() == second.json()
    assert list(first.json()["models"]) == ["other"]


@pytest.mark.slow
def test_what_is_served_as_declared_and_what_is_not(server: Server) -> None:
    answer = server.http.get("/doctor")
    assert answer.status_code == 200, answer.text
    reports = answer.json()["models"]
    assert list(reports) == ["default", "broken", "other"]
    sound, broken = reports["default"], reports["broken"]
    assert sound["faults"] == [] and sound["model"] == "default"
    similarity = {"similarity": "cosine"}  # a matter of each collection
    assert sound["declared"].items() <= (sound["served"] | similarity).items()
    agreement = {name: _finding(report, "agreement") for name, report in reports.items()}
    assert {each["severity"] for each in agreement.values()} == {"ok"}
    assert broken["faults"] == ["pooling", "normalisation", "prompt"]
    assert broken["declared"] == sound["declared"] and broken["served"]["pooling"] == "mean"
    assert "mean is served, and the checkpoint declares cls" in _finding(broken, "pooling")["seen"]
    assert "leaves out document, query" in _finding(broken, "prompt")["seen"]
    assert broken["verdict"].startswith("broken is not sound: 3 faults (pooling, normalisation, prompt)")
    info = server.http.get("/info").json()["models"]
    assert {name: report["served"]["fingerprint"] for name, report in reports.items()} == {
        name: model["fingerprint"] for name, model in info.items()
    }
    assert server.http.get("/doctor", params={"model": "broken"}).json()["models"] == {"broken": broken}


@pytest.mark.slow
def test_an_unknown_model(server: Server) -> None:
    problem(
        server.http.get("/doctor", params={"model": "brokem"}), 404, "no model is named", "Did you mean 'broken'?"
    )


@pytest.mark.slow
def test_the_document_tells_the_shape(server: Server) -> None:
    document = server.http.get("/openapi.json").json()
    operation = document["paths"]["/doctor"]["get"]
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    report = server.http.get("/doctor", params={"model": "other"}).json()
    validator = Draft202012Validator(schema | {"components": document["components"]})
    assert list(validator.iter_errors(report)) == []
    assert list(validator.iter_errors({"models": {"other": {"faults": "none"}}})) != []
    assert {"404", "503"} <= operation["responses"].keys()
    assert operation["parameters"][0]["name"] == "model"


@pytest.mark.slow
def test_the_packaged_model_under_another_pooling(side_by_side: Server) -> None:
    reports = side_by_side.http.get("/doctor", params={"model": "cls"}).json()["models"]
    assert reports["cls"]["faults"] == ["pooling"] and reports["cls"]["warnings"] == ["evidence"]
    assert "these weights were trained with mean" in _finding(reports["cls"], "pooling")["seen"]


def _finding(report: dict, name: str) -> dict:
    (found,) = [each for each in report["findings"] if each["name"] == name]
    return found
