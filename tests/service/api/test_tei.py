"""The routes and shapes of text-embeddings-inference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from sentence_transformers import SentenceTransformer

from tests.support.deployed import deployed
from tests.support.problems import openai_problem, problem
from tests.support.servers import Server

TEXTS = ["A man is playing a harp.", "pooling", "naïve 日本 👍"]


def answer(http: httpx.Client, path: str, **body: Any) -> Any:
    response = http.post(path, json=body)
    assert response.status_code == 200, response.text[:500]
    return response.json()


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/", "/invocations"])
def test_the_models_own_task(http: httpx.Client, path: str) -> None:
    options = {"normalize": False, "dimensions": 5}
    vectors = answer(http, "/embed", inputs=TEXTS, **options)
    np.testing.assert_allclose(answer(http, path, inputs=TEXTS, **options), vectors, atol=1e-6)
    np.testing.assert_allclose(answer(http, path, inputs=TEXTS, parameters=options), vectors, atol=1e-6)
    np.testing.assert_allclose(answer(http, path, inputs=TEXTS[0], **options), vectors[:1], atol=1e-6)
    pairing = {"source_sentence": TEXTS[0], "sentences": TEXTS[1:]}
    np.testing.assert_allclose(
        answer(http, path, inputs=pairing), answer(http, "/similarity", inputs=pairing), atol=1e-6
    )


def test_similarity(http: httpx.Client, reference: SentenceTransformer) -> None:
    vectors = reference.encode(TEXTS)
    found = answer(http, "/similarity", inputs={"source_sentence": TEXTS[0], "sentences": TEXTS}, parameters={})
    np.testing.assert_allclose(found, vectors @ vectors[0], atol=1e-5)
    long = {"source_sentence": TEXTS[0], "sentences": [TEXTS[1], "word " * 300]}
    refused = problem(http.post("/similarity", json={"inputs": long}), 413, "inputs.sentences[1] has 302 tokens")
    assert refused["place"] == {"field": "inputs", "index": 1} and refused["error_type"] == "Validation"
    response = http.post("/similarity", json={"inputs": long, "parameters": {"truncate": True}})
    assert response.headers["x-truncated"] == "1" and len(response.json()) == 2
    for inputs, words in (
        ({"source_sentence": TEXTS[0], "sentences": []}, ["inputs.sentences is empty"]),
        ({"source_sentence": "", "sentences": TEXTS}, ["inputs.source_sentence is empty"]),
        ({"sentences": TEXTS}, ["inputs.source_sentence: this field is required"]),
    ):
        problem(http.post("/similarity", json={"inputs": inputs}), 422, *words)


def test_token_ids_and_texts_together(http: httpx.Client, reference: SentenceTransformer) -> None:
    expected = reference.encode(TEXTS)
    bare = reference.tokenizer(TEXTS[0], add_special_tokens=False)["input_ids"]
    framed = reference.tokenizer(TEXTS[2])["input_ids"]
    np.testing.assert_allclose(answer(http, "/embed", inputs=bare), expected[:1], atol=1e-5)
    np.testing.assert_allclose(answer(http, "/embed", inputs=[bare, TEXTS[1], framed]), expected, atol=1e-5)
    np.testing.assert_allclose(answer(http, "/embed", inputs=[TEXTS[0], TEXTS[1], framed]), expected, atol=1e-5)


def test_tokens(http: httpx.Client, reference: SentenceTransformer) -> None:
    tokenizer = reference.tokenizer
    found = answer(http, "/tokenize", inputs=TEXTS)
    for text, tokens in zip(TEXTS, found, strict=True):
        ids = [token["id"] for token in tokens]
        assert ids == tokenizer(text)["input_ids"]
        assert [token["special"] for token in tokens] == [True, *[False] * (len(ids) - 2), True]
        for token in tokens[1:-1]:
            assert token["text"] == text[token["start"] : token["stop"]]
        assert [(tokens[at]["text"], tokens[at]["start"], tokens[at]["stop"]) for at in (0, -1)] == [
            ("[CLS]", None, None),
            ("[SEP]", None, None),
        ]
    bare = answer(http, "/tokenize", inputs=TEXTS[0], add_special_tokens=False)
    assert bare == [found[0][1:-1]]
    assert len(answer(http, "/tokenize", inputs="word " * 1000)[0]) == 1002
    problem(http.post("/tokenize", json={"inputs": ["word " * 200_000] * 2}), 413, "262144 are listed")
    problem(http.post("/tokenize", json={"inputs": []}), 422, "inputs is empty")


def test_decoded_ids(http: httpx.Client, reference: SentenceTransformer) -> None:
    ids = [reference.tokenizer(text)["input_ids"] for text in TEXTS]
    assert answer(http, "/decode", ids=ids) == reference.tokenizer.batch_decode(ids, skip_special_tokens=True)
    assert answer(http, "/decode", ids=ids[0], skip_special_tokens=False)[0].startswith("[CLS] a man is playing")
    found = problem(http.post("/decode", json={"ids": [[5], [30_522]]}), 422, "token id 30522")
    assert (found["where"], found["error_type"]) == ("ids[1]", "Tokenizer")
    problem(http.post("/decode", json={"ids": []}), 422, "ids is empty")


def test_openais_route_without_a_version(http: httpx.Client) -> None:
    body = {"model": "mean", "input": TEXTS}
    assert http.post("/embeddings", json=body).json().keys() == http.post("/v1/embeddings", json=body).json().keys()
    openai_problem(http.post("/embeddings", json={"input": TEXTS, "modle": "mean"}), 400, "Did you mean 'model'")


@pytest.mark.parametrize(
    ("path", "body", "status", "kind"),
    [
        ("/embed", {"inputs": ""}, 422, "Empty"),
        ("/embed", {"inputs": []}, 422, "Empty"),
        ("/embed", {"inputs": "a", "truncat": True}, 422, "Validation"),
        ("/embed", {"inputs": "word " * 300}, 413, "Validation"),
        ("/embed", {"inputs": [5, 30_522]}, 422, "Tokenizer"),
        ("/embed", {"inputs": "a", "model": "men"}, 404, "Validation"),
        ("/rerank", {"query": "a", "texts": ["b"]}, 424, "Backend"),
        ("/predict", {"inputs": "a"}, 424, "Backend"),
        ("/embed_sparse", {"inputs": "a"}, 424, "Backend"),
    ],
)
def test_errors(http: httpx.Client, path: str, body: Any, status: int, kind: str) -> None:
    assert problem(http.post(path, json=body), status)["error_type"] == kind


def test_alive(http: httpx.Client) -> None:
    for path in ("/", "/ping", "/health"):
        assert http.get(path).status_code == 200


def test_what_is_told_of_the_model(http: httpx.Client) -> None:
    info = http.get("/info").json()
    assert info["model_id"].endswith("all-MiniLM-L6-v2") and info["model_dtype"] == "float32"
    assert info["model_type"] == {"embedding": {"pooling": "mean"}}
    counts = ("max_concurrent_requests", "max_input_length", "max_batch_tokens", "max_client_batch_size")
    assert all(type(info[name]) is int for name in (*counts, "tokenization_workers"))
    assert (info["max_input_length"], info["max_client_batch_size"], info["auto_truncate"]) == (256, 16_384, False)


def test_states_alone_for_clients_of_tei(tmp_path: Path) -> None:
    with deployed(tmp_path) as ours:
        told = ours.post("/embed_all", {"inputs": TEXTS}).json()
    with deployed(tmp_path, server={"embed_all": "tei"}) as tei:
        states = tei.post("/embed_all", {"inputs": TEXTS}).json()
    assert states == [text["states"] for text in told]


# huggingface_hub


@pytest.fixture(scope="module")
def hub(small: Server) -> InferenceClient:
    return InferenceClient(model=small.url)


def test_feature_extraction(hub: InferenceClient, reference: SentenceTransformer) -> None:
    expected = reference.encode(TEXTS)
    np.testing.assert_allclose(hub.feature_extraction(TEXTS), expected, atol=1e-5)
    np.testing.assert_allclose(hub.feature_extraction(TEXTS[0]), expected[:1], atol=1e-5)
    cut = hub.feature_extraction(
        ["word " * 300],
        normalize=True,
        truncate=True,
        truncation_direction="left",
        dimensions=7,
        encoding_format="float",
    )
    assert cut.shape == (1, 7) and abs(np.linalg.norm(cut) - 1) < 1e-5


def test_sentence_similarity(hub: InferenceClient, reference: SentenceTransformer) -> None:
    expected = reference.encode(TEXTS)
    np.testing.assert_allclose(hub.sentence_similarity(TEXTS[0], TEXTS[1:]), expected[1:] @ expected[0], atol=1e-5)


def test_the_hubs_client_tells_what_was_wrong(hub: InferenceClient) -> None:
    with pytest.raises(HfHubHTTPError) as caught:
        hub.feature_extraction(["fine", "word " * 300])
    assert "inputs[1] has 302 tokens" in str(caught.value)
