"""Requests that share passes with one that the model fails on."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from tests.support.checkpoints import TEXTS, plain_bert, reference, sentence_transformer
from tests.support.servers import Server

CLIENTS, REQUESTS = 16, 40
POISON = "Grain"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A model in which one token's row of the embedding table is not a number."""
    folder = tmp_path_factory.mktemp("neighbours")
    checkpoint = sentence_transformer(plain_bert(folder / "plain"), folder / "declared")
    (weights,) = checkpoint.glob("*.safetensors")
    tensors = load_file(weights)
    tokens = AutoTokenizer.from_pretrained(checkpoint).encode(POISON, add_special_tokens=False)
    tensors["embeddings.word_embeddings.weight"][tokens] = float("nan")
    save_file(tensors, weights, metadata={"format": "pt"})
    config = folder / "config.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "models": {"default": {"encoder": str(checkpoint)}},
                "runtime": {"backend": "torch", "cache": str(folder / "cache")},
            }
        )
    )
    with Server(config, folder / "store") as running:
        running.checkpoint = Path(checkpoint)
        yield running


@pytest.mark.slow
def test_clean_requests_beside_a_poisoned_one(server):
    clean = [text for text in TEXTS if POISON not in text]
    wanted = reference(server.checkpoint).encode(clean)
    over = threading.Event()
    with httpx.Client(base_url=server.url, timeout=60) as http, ThreadPoolExecutor(CLIENTS + 2) as pool:

        def poison():
            answers = []
            while not over.is_set():
                answers.append(http.post("/embed", json={"inputs": [clean[0], POISON, clean[1]]}))
            return answers

        def ask(number):
            place = number % len(clean)
            return place, http.post("/embed", json={"inputs": [clean[place], clean[0]]})

        poisoned = [pool.submit(poison) for _ in range(2)]
        try:
            for place, answer in pool.map(ask, range(CLIENTS * REQUESTS)):
                assert answer.status_code == 200, answer.text
                np.testing.assert_allclose(answer.json(), wanted[[place, 0]], atol=1e-5)
        finally:
            over.set()
        answers = [answer for one in poisoned for answer in one.result()]
    assert answers
    for answer in answers:
        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (500, "broken_model")
        assert problem["place"] == {"field": "inputs", "index": 1}
        assert "inputs[1]" in problem["detail"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/embed_all", {"inputs": [TEXTS[0], POISON]}),
        ("/embed_spans", {"inputs": [TEXTS[0], POISON], "spans": {"by": "sentence"}}),
        ("/v1/embeddings", {"input": [TEXTS[0], POISON], "model": "default"}),
    ],
)
def test_every_route_names_the_text_at_fault(server, path, body):
    answer = httpx.post(server.url + path, json=body, timeout=60)
    assert answer.status_code == 500
    assert "[1]" in answer.text
    assert "not finite" in answer.text


def test_a_document_at_fault_is_named_and_nothing_is_stored(server):
    documents = [{"id": "a", "text": TEXTS[0]}, {"id": "b", "text": POISON}]
    mill = server.url + "/collections/mill"
    assert httpx.put(mill, json={}).is_success
    answer = httpx.post(mill + "/documents", json={"documents": documents}, timeout=60)
    assert answer.status_code == 500
    assert answer.json()["place"] == {"field": "documents", "index": 1}
    assert httpx.get(mill + "/documents/a").status_code == 404
