"""The official OpenAI client."""

from __future__ import annotations

import numpy as np
import openai as sdk
import pytest
from openai import OpenAI
from sentence_transformers import SentenceTransformer

TEXTS = ["A man is playing a harp.", "pooling", "naïve 日本 👍"]


@pytest.fixture(scope="module")
def expected(reference: SentenceTransformer) -> np.ndarray:
    return reference.encode(TEXTS)


def vectors(answer: sdk.types.CreateEmbeddingResponse) -> np.ndarray:
    assert [item.index for item in answer.data] == list(range(len(answer.data)))
    return np.array([item.embedding for item in answer.data])


def test_a_string_and_strings(openai: OpenAI, expected: np.ndarray) -> None:
    one = openai.embeddings.create(model="mean", input=TEXTS[0])
    assert (one.object, one.model, one.data[0].object) == ("list", "mean", "embedding")
    np.testing.assert_allclose(vectors(one), expected[:1], atol=1e-5)
    np.testing.assert_allclose(vectors(openai.embeddings.create(model="mean", input=TEXTS)), expected, atol=1e-5)


def test_token_ids_are_as_the_text(openai: OpenAI, reference: SentenceTransformer, expected: np.ndarray) -> None:
    bare = reference.tokenizer(TEXTS, add_special_tokens=False)["input_ids"]
    framed = reference.tokenizer(TEXTS)["input_ids"]
    for ids in (bare, framed):
        np.testing.assert_allclose(vectors(openai.embeddings.create(model="mean", input=ids)), expected, atol=1e-5)
        np.testing.assert_allclose(
            vectors(openai.embeddings.create(model="mean", input=ids[0])), expected[:1], atol=1e-5
        )


def test_base64_and_floats_are_equal(openai: OpenAI) -> None:
    default = vectors(openai.embeddings.create(model="mean", input=TEXTS))  # the client asks for base64
    floats = vectors(openai.embeddings.create(model="mean", input=TEXTS, encoding_format="float"))
    np.testing.assert_array_equal(default.astype(np.float32), floats.astype(np.float32))
    encoded = openai.embeddings.create(model="mean", input=TEXTS[0], encoding_format="base64").data[0].embedding
    assert isinstance(encoded, str) and len(encoded) == 2048  # 384 float32


def test_a_long_answer_is_whole(openai: OpenAI) -> None:
    texts = [f"word number {number}" for number in range(150)]
    long = openai.embeddings.create(model="mean", input=texts)
    few = [openai.embeddings.create(model="mean", input=texts[start : start + 30]) for start in range(0, 150, 30)]
    np.testing.assert_allclose(vectors(long), np.concatenate([vectors(answer) for answer in few]), atol=1e-5)
    assert long.usage.total_tokens == sum(answer.usage.total_tokens for answer in few)
    floats = openai.embeddings.create(model="mean", input=texts, encoding_format="float")
    np.testing.assert_allclose(vectors(floats), vectors(long), atol=1e-6)


def test_dimensions_and_usage(openai: OpenAI, reference: SentenceTransformer, expected: np.ndarray) -> None:
    answer = openai.embeddings.create(model="mean", input=TEXTS, dimensions=100)
    cut = expected[:, :100]
    np.testing.assert_allclose(vectors(answer), cut / np.linalg.norm(cut, axis=1, keepdims=True), atol=1e-5)
    tokens = sum(map(len, reference.tokenizer(TEXTS)["input_ids"]))
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (tokens, tokens)


def test_pooling_as_an_extra_field(openai: OpenAI) -> None:
    configured = vectors(openai.embeddings.create(model="cls", input=TEXTS))
    asked = vectors(openai.embeddings.create(model="mean", input=TEXTS, extra_body={"pooling": "cls"}))
    np.testing.assert_allclose(asked, configured, atol=1e-6)


def test_models(openai: OpenAI) -> None:
    listed = {model.id: model for model in openai.models.list()}
    assert list(listed) == ["mean", "cls", "max", "last", "weighted_mean", "gem"]
    assert openai.models.retrieve("cls") == listed["cls"]
    assert listed["cls"].object == "model" and listed["cls"].owned_by == "millpond"


def test_unknown_models_are_not_found(openai: OpenAI) -> None:
    with pytest.raises(sdk.NotFoundError, match=r"'text-embedding-3-small'.*'mean'") as caught:
        openai.embeddings.create(model="text-embedding-3-small", input="a")
    assert caught.value.code == "model_not_found" and caught.value.param == "model"
    with pytest.raises(sdk.NotFoundError, match="Did you mean 'mean'"):
        openai.models.retrieve("meann")
    with pytest.raises(sdk.NotFoundError, match="no model is named 'sentence-transformers/all-MiniLM-L6-v2'"):
        openai.models.retrieve("sentence-transformers/all-MiniLM-L6-v2")


@pytest.mark.parametrize(
    ("asked", "message", "param"),
    [
        ({"input": ""}, "input is empty", "input"),
        ({"input": []}, "input is empty; send at least one", "input"),
        ({"input": ["a", " \n"]}, r"input\[1\] has nothing but white space", "input[1]"),
        ({"input": [[]]}, r"input\[0\] has no token", "input[0]"),
        ({"input": [30522]}, "token id 30522 is not in this model's vocabulary of 30522", "input"),
        ({"input": [[2158], [-1]]}, "token id -1", "input[1]"),
        ({"input": ["a", 1]}, r"input\[1\]: Input should be a valid string, not 1", "input[1]"),
        ({"input": [True]}, r"input\[0\].*not True", "input[0]"),
        ({"input": "a", "dimensions": 0}, "from 1 to 384", "dimensions"),
        ({"input": "a", "dimensions": 385}, "from 1 to 384", "dimensions"),
        ({"input": "a", "encoding_format": "hex"}, "'float' or 'base64'", "encoding_format"),
        ({"input": "a", "extra_body": {"pooling": "men"}}, "did you mean 'mean'", "pooling"),
        ({"input": "a", "extra_body": {"poolng": "mean"}}, "Did you mean 'pooling'", "poolng"),
    ],
)
def test_bad_requests(openai: OpenAI, asked: dict[str, object], message: str, param: str) -> None:
    with pytest.raises(sdk.BadRequestError, match=message) as caught:
        openai.embeddings.create(model="mean", **asked)
    assert caught.value.param == param and caught.value.type == "invalid_request_error"


def test_a_text_too_long_is_refused_with_both_lengths_or_cut(openai: OpenAI, reference: SentenceTransformer) -> None:
    long = "word " * 300
    with pytest.raises(sdk.APIStatusError, match=r"302 tokens.*256") as caught:
        openai.embeddings.create(model="mean", input=long)
    assert (caught.value.status_code, caught.value.code) == (413, "context_length_exceeded")
    cut = vectors(openai.embeddings.create(model="mean", input=long, extra_body={"truncate": True}))
    np.testing.assert_allclose(cut[0], reference.encode(long), atol=1e-5)
