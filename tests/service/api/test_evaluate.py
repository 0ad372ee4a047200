"""`/evaluate` against the evaluation of the library, and what is wrong with requests told in their terms."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from pooling.tasks import read
from service.access import digest
from service.config import Config
from service.deployment import Deployment, open_deployment
from service.evaluation import choose, evaluate
from tests.support import checkpoints
from tests.support.applications import application, ask
from tests.support.problems import problem
from tests.support.servers import ROOT

PAIRS = ROOT / "examples" / "pairs" / "dev.csv"
POOLINGS = ["mean", "max"]


def rows_of(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="") as file:
        return [row | {"score": float(row["score"])} for row in csv.DictReader(file)]


def lines(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.headers["x-accel-buffering"] == "no"
    return [json.loads(line) for line in answer.text.splitlines()]


def post(served: Deployment, body: Any, **more: Any) -> httpx.Response:
    return ask(application(served), "POST", "/evaluate", json=body, **more)


def close(one: Any, other: Any) -> None:
    """Assert that two reports are equal but for rounding."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one.keys() - {"speed", "seconds", "pooling_share", "name"}:
            close(one[key], other[key])
    elif isinstance(one, list):
        for each, its in zip(one, other, strict=True):
            close(each, its)
    else:
        assert one == pytest.approx(other, abs=1e-4)


def test_the_report_is_that_of_the_library(tiny: Deployment) -> None:
    found = lines(post(tiny, {"pairs": rows_of(PAIRS), "pooling": POOLINGS}))
    model = tiny.models.get()
    report = evaluate(model, choose(model, POOLINGS, [], print), [("pairs", read(PAIRS))]).to_json()
    close(found[-1]["report"], json.loads(json.dumps(report)))
    steps = [line["progress"] for line in found[:-1]]
    stages = list(dict.fromkeys(step["stage"] for step in steps))
    assert stages == ["embedding", "scoring", "information", "robustness", "speed"]
    assert steps[0] == {"stage": "embedding", "done": 0, "total": 80}
    assert all(0 <= step["done"] <= step["total"] for step in steps)


@pytest.mark.slow
def test_the_packaged_data_are_the_examples(tiny: Deployment) -> None:
    (data,) = lines(post(tiny, {"data": "examples", "pooling": "mean"}))[-1]["report"]["data"]
    assert (data["name"], data["kind"], data["size"], data["metrics"]) == (
        *("examples", "similarity", 100),
        ["spearman", "pearson"],
    )
    packaged = ROOT / "service" / "evaluation" / "examples.csv"
    assert rows_of(packaged) == [*rows_of(PAIRS.with_name("test.csv")), *rows_of(PAIRS)]


@pytest.mark.slow
def test_pairs_that_belong_together_and_labelled_texts(tiny: Deployment) -> None:
    rows = [{"anchor": row["sentence1"], "positive": row["sentence2"], "id": 7} for row in rows_of(PAIRS)[:24]]
    (data,) = lines(post(tiny, {"pairs": rows, "pooling": "mean"}))[-1]["report"]["data"]
    assert (data["kind"], data["size"], data["metrics"][0]) == ("retrieval", 24, "ndcg@10")
    labelled = [{"text": row["sentence1"], "label": place % 2} for place, row in enumerate(rows_of(PAIRS)[:24])]
    (data,) = lines(post(tiny, {"classification": labelled, "pooling": "mean"}))[-1]["report"]["data"]
    assert (data["kind"], data["size"], data["metrics"][0]) == ("classification", 24, "accuracy")


GOOD = [{"sentence1": f"mill {place}", "sentence2": "a wheel", "score": place} for place in range(24)]


def pairs(**changed: Any) -> dict[str, Any]:
    return {"pairs": [*GOOD[:3], GOOD[3] | changed, *GOOD[4:]]}


@pytest.mark.parametrize(
    ("body", "status", "where", "words"),
    [
        ({}, 422, "data", "'data'"),
        ({"data": "examples", "pairs": GOOD}, 422, "data", "one of these"),
        ({"data": "stsb"}, 422, "data", "'examples'"),
        ({"pairs": []}, 422, "pairs", "pairs is empty; send at least 20"),
        ({"pairs": GOOD[:19]}, 422, "pairs", "has 19 pairs"),
        (pairs(sentence2="a" * 1_000_001), 413, "pairs[3].sentence2", "has 1000001 characters"),
        ({"pairs": GOOD * 84}, 413, "pairs", "has 2016 rows, and one request takes 2000"),
        (
            {"pairs": [{"one": "a"}] * 24},
            422,
            "pairs[0]",
            "has the fields one. It needs sentence1, sentence2 and score",
        ),
        ({"pairs": ["a"] * 24}, 422, "pairs[0]", "object"),
        (pairs(score="high"), 422, "pairs[3]", "pairs[3]: score is 'high', which is no finite number"),
        (pairs(score=10**400), 422, "pairs[3]", "no finite number"),
        (pairs(sentence2=" "), 422, "pairs[3]", "pairs[3]: sentence2 is empty"),
        (pairs(sentence1=4), 422, "pairs[3]", "pairs[3]: sentence1 is no text"),
        ({"pairs": [row | {"score": 1} for row in GOOD]}, 422, "pairs", "every pair has the score 1"),
        ({"pairs": [{"text": "a", "label": "b"}] * 24}, 422, "pairs", "sent as classification"),
        (
            {"classification": [{"text": "a", "label": "b"}] * 24},
            422,
            "classification",
            "every text has the label 'b'",
        ),
        ({"data": "examples", "pooling": "maen"}, 422, "pooling", "did you mean 'mean'"),
        ({"data": "examples", "pooling": ["mean", "attention"]}, 422, "pooling", "is learned"),
        ({"data": "examples", "pooling": []}, 422, "pooling", "0 poolings"),
        ({"data": "examples", "pooling": ["piecewise(n=64)"] * 16 + ["mean"]}, 422, "pooling", "17 poolings"),
        ({"data": "examples", "model": "none"}, 404, "model", "no model is named"),
        ({"data": "examples", "layers": {"use": [99]}}, 422, "layers", "layers"),
    ],
)
def test_what_is_refused(tiny: Deployment, body: dict[str, Any], status: int, where: str, words: str) -> None:
    told = problem(post(tiny, body), status, words)
    assert told["where"] == where


def test_a_text_without_tokens_is_named_by_its_row(tmp_path: Path) -> None:
    folder = checkpoints.plain_bert(tmp_path / "model")
    tokenizer = folder / "tokenizer.json"
    cleaning = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True}
    cleaning |= {"strip_accents": None, "lowercase": False}
    tokenizer.write_text(json.dumps(json.loads(tokenizer.read_text()) | {"normalizer": cleaning}))
    with _deployed(folder, tmp_path, pooling="mean") as served:
        told = problem(post(served, pairs(sentence2="\ufffd")), 422, "pairs[3].sentence2")
    assert told["place"] == {"field": "pairs", "index": 3}


def test_vectors_that_would_fill_a_disk(tmp_path: Path) -> None:
    many = [{"sentence1": f"mill {place}", "sentence2": f"wheel {place}", "score": place} for place in range(2_000)]
    spec = " + ".join(["piecewise(n=64)"] * 12)
    with _deployed(checkpoints.plain_bert(tmp_path / "model"), tmp_path, pooling="mean") as served:
        told = problem(post(served, {"pairs": many, "pooling": spec}), 413, "numbers together", "Send fewer rows")
    assert told["limit"] == 2**26


def test_a_model_with_a_router(tmp_path: Path) -> None:
    with _deployed(checkpoints.routed(tmp_path / "model"), tmp_path) as served:
        told = problem(post(served, {"data": "examples"}), 422, "has a Router", "Name a model without a Router")
        assert told["where"] == "model" and str(tmp_path) not in told["detail"]


def test_a_deadline_before_it_begins(tiny: Deployment) -> None:
    problem(post(tiny, {"data": "examples"}, headers={"x-request-timeout": "1e-300"}), 504, "X-Request-Timeout")


@pytest.mark.slow
def test_its_tokens_are_those_of_its_key(tiny: Deployment) -> None:
    """A quota that embedding the texts once would leave is spent by the passes over them."""
    key = f"millpond_{digest('quiz')}"
    access = {"keys": {"quiz": {"hash": digest(key), "scopes": ["embed"], "tokens_per_day": 2_000}}}
    app = application(tiny, access=access)
    body = {"pairs": rows_of(PAIRS), "pooling": "mean"}
    assert "report" in lines(ask(app, "POST", "/evaluate", key, json=body))[-1]
    told = problem(ask(app, "POST", "/embed", key, json={"inputs": "a"}), 429)
    assert told["code"] == "token_quota_exceeded"


def _deployed(folder: Path, store: Path, **model: Any) -> Deployment:
    config = {
        "models": {"default": {"encoder": str(folder), **model}},
        "runtime": {"backend": "torch", "precision": "fp32", "threads": 1},
        "store": {"path": str(store / "store")},
    }
    return open_deployment(Config.model_validate(config))
