"""The types of numbers in answers, against sentence-transformers' `quantize_embeddings`."""

from __future__ import annotations

from base64 import b64decode
from typing import Any

import httpx
import numpy as np
import pytest
from openai import OpenAI
from sentence_transformers.util.quantization import quantize_embeddings

from service.embedding.output_types import converted, largest
from tests.support.problems import problem

TEXTS = ["A man is playing a harp.", "pooling", "naïve 日本 👍"]
TYPES = {
    "float32": np.float32,
    "float": np.float32,
    "float16": np.float16,
    "int8": np.int8,
    "uint8": np.uint8,
    "binary": np.int8,
    "ubinary": np.uint8,
}


def expected(vectors: np.ndarray, wanted: str) -> np.ndarray:
    if wanted in ("float", "float32", "float16"):
        return vectors.astype(TYPES[wanted])
    most = largest(vectors.shape[1])
    ranges = np.array([[-most], [most]]).repeat(vectors.shape[1], axis=1)
    return quantize_embeddings(vectors, wanted, ranges=ranges)


def embed(http: httpx.Client, inputs: Any, **more: Any) -> np.ndarray:
    answer = http.post("/embed", json={"inputs": inputs, **more})
    assert answer.status_code == 200, answer.text
    return np.array(answer.json())


@pytest.mark.parametrize("wanted", TYPES)
@pytest.mark.parametrize("dimensions", [384, 13, 1])
def test_each_type_is_as_sentence_transformers_has_it(wanted: str, dimensions: int) -> None:
    rng = np.random.default_rng(dimensions)
    vectors = rng.normal(size=(50, dimensions)).astype(np.float32)
    vectors[0, 0] = 50
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = converted(vectors, wanted, normalized=True)
    assert found.dtype == TYPES[wanted]
    np.testing.assert_array_equal(found, expected(vectors, wanted))


@pytest.mark.parametrize("wanted", TYPES)
def test_in_json_and_in_base64(http: httpx.Client, openai: OpenAI, wanted: str) -> None:
    vectors = embed(http, TEXTS).astype(np.float32)
    in_json = embed(http, TEXTS, output_dtype=wanted)
    difference = np.abs(in_json.astype(float) - expected(vectors, wanted).astype(float))
    assert (
        difference > (1e-3 if "float" in wanted else 0)
    ).mean() < 0.01  # a number on the edge of a step may differ
    encoded = http.post("/embed", json={"inputs": TEXTS, "output_dtype": wanted, "encoding_format": "base64"}).json()
    decoded = np.array([np.frombuffer(b64decode(text), TYPES[wanted]) for text in encoded])
    np.testing.assert_allclose(decoded.astype(float), in_json.astype(float), rtol=1e-6, atol=1e-6)
    answer = openai.embeddings.create(
        model="mean", input=TEXTS, encoding_format="float", extra_body={"output_dtype": wanted}
    )
    np.testing.assert_allclose([item.embedding for item in answer.data], in_json, rtol=1e-6, atol=1e-6)


def test_a_vector_does_not_depend_on_its_neighbours(http: httpx.Client) -> None:
    alone = embed(http, TEXTS[0], output_dtype="int8")[0]
    beside = embed(http, TEXTS, output_dtype="int8")[0]
    assert (alone != beside).mean() < 0.01 and np.abs(alone - beside).max() <= 1


def test_spans_too(http: httpx.Client) -> None:
    body = {"inputs": TEXTS[0], "spans": [[0, 5], [6, 20]], "output_dtype": "binary"}
    vectors = np.array(http.post("/embed_spans", json=body).json()[0]["vectors"])
    assert vectors.shape == (2, 48) and vectors.min() < 0


def test_what_has_no_range(http: httpx.Client) -> None:
    for wanted in ("int8", "uint8"):
        body = {"inputs": TEXTS[0], "output_dtype": wanted, "normalize": False}
        refused = problem(http.post("/embed", json=body), 422, "length one", '"normalize": true')
        assert refused["where"] == "output_dtype"
    assert embed(http, TEXTS[0], output_dtype="binary", normalize=False).shape == (1, 48)
    problem(http.post("/embed", json={"inputs": "a", "output_dtype": "int4"}), 422, "output_dtype", "'ubinary'")
