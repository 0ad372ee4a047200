"""`/explain` against the vectors that are served, and against what `/embed_all` says of the same tokens."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest

from tests.support.problems import problem

TEXT = "A man is playing a harp in the naïve 日本 rain."
OTHER = "Someone plays the harp [SEP] 👨‍👩‍👧."
SPECS: list[Any] = [
    "mean",
    "mean_sqrt_len",
    "cls",
    "max",
    "last",
    "weighted_mean",
    "gem(p=3)",
    "gem(p=2, negative=clamp)",
]
CHAIN = " > ".join(["window(2, 1, by=max)"] * 31 + ["mean"])
SPECS += ["mean + max", ["cls", "gem"], "adaptive(n=3) > max", "window(size=3, stride=2, by=max) > mean + gem"]


def explained(http: httpx.Client, **body: Any) -> list[dict[str, Any]]:
    answer = http.post("/explain", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["explanations"]


def cosine(http: httpx.Client, spec: Any) -> float:
    one, other = http.post("/embed", json={"inputs": [TEXT, OTHER], "pooling": spec, "model": "mean"}).json()
    return float(np.dot(one, other))


def test_tokens_are_those_of_embed_all(http: httpx.Client) -> None:
    (found,) = explained(http, text=TEXT, model="mean")
    (states,) = http.post("/embed_all", json={"inputs": TEXT, "model": "mean"}).json()
    assert [token["token"] for token in found["tokens"]] == states["tokens"]
    offsets = [None if token["start"] is None else [token["start"], token["end"]] for token in found["tokens"]]
    assert offsets == states["offsets"]
    assert {TEXT[start:end] for start, end in filter(None, offsets)} >= {"harp", "naïve", "日", "rain", "."}
    assert found["tokens"][0]["token"] == "[CLS]" and offsets[0] is None
    assert found.keys() == {"pooling", "tokens"}


def test_the_model_s_own_pooling_unless_given(http: httpx.Client) -> None:
    for model in ("mean", "cls", "gem"):
        (found,) = explained(http, text=TEXT, model=model)
        assert found["pooling"].startswith(model)
    count = len(found["tokens"])
    (mean,) = explained(http, text=TEXT, model="cls", pooling="mean")
    np.testing.assert_allclose([token["share"] for token in mean["tokens"]], 1 / count, rtol=1e-6)
    cls, mean = explained(http, text=TEXT, model="cls", pooling=[None, "mean"])
    assert mean["pooling"] == "mean"
    assert [token["share"] for token in cls["tokens"]] == [1.0] + [0.0] * (count - 1)


def test_shares_add_up_to_one(http: httpx.Client) -> None:
    found = explained(http, text=TEXT, model="mean", pooling=SPECS)
    assert len(found) == len(SPECS)
    for one in found:
        shares = [token["share"] for token in one["tokens"]]
        assert min(shares) >= 0 and sum(shares) == pytest.approx(1, abs=1e-6), one["pooling"]


def test_shares_of_max_are_the_dimensions_won(http: httpx.Client) -> None:
    (found,) = explained(http, text=TEXT, model="max")
    (states,) = http.post("/embed_all", json={"inputs": TEXT, "model": "max"}).json()
    winners = np.array(states["states"]).argmax(0)
    won = np.bincount(winners, minlength=len(states["tokens"])) / len(winners)
    np.testing.assert_allclose([token["share"] for token in found["tokens"]], won, atol=1e-6)


def test_contributions_add_up_to_the_cosine_of_the_served_vectors(http: httpx.Client) -> None:
    found = explained(http, text=TEXT, other=OTHER, model="mean", pooling=SPECS, matrix=True)
    for spec, one in zip(SPECS, found, strict=True):
        expected = pytest.approx(cosine(http, spec), abs=1e-5)
        matrix = np.array(one["matrix"])
        assert matrix.shape == (len(one["tokens"]), len(one["other"]))
        for similarity in (one["similarity"], one["served_similarity"], matrix.sum()):
            assert similarity == expected, one["pooling"]
        for side, axis in (("tokens", 1), ("other", 0)):
            contributions = [token["contribution"] for token in one[side]]
            assert sum(contributions) == expected
            np.testing.assert_allclose(contributions, matrix.sum(axis), atol=1e-6)
        assert one["attribution"] == ("by share" if "gem" in one["pooling"] else "exact")


def test_the_strongest_pairs_are_those_of_the_matrix(http: httpx.Client) -> None:
    (found,) = explained(http, text=TEXT, other=OTHER, matrix=True)
    matrix = np.array(found["matrix"])
    for pair in found["pairs"]:
        i, j = pair["index"], pair["other_index"]
        assert pair["contribution"] == pytest.approx(matrix[i, j])
        assert (pair["token"], pair["other_token"]) == (found["tokens"][i]["token"], found["other"][j]["token"])
    largest = np.sort(np.abs(matrix).ravel())[::-1][:10]
    np.testing.assert_allclose([abs(pair["contribution"]) for pair in found["pairs"]], largest, atol=1e-7)
    assert (found["pairs"][0]["token"], found["pairs"][0]["other_token"]) == ("harp", "harp")


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 422, ["text: this field is required"]),
        ({"text": ""}, 422, ["text is empty"]),
        ({"text": "\u200b"}, 422, ["text has no token"]),
        ({"text": ["a"]}, 422, ["text", "string"]),
        ({"text": "a", "other": ""}, 422, ["other is empty"]),
        ({"text": "a", "other": " "}, 422, ["other has nothing but white space"]),
        ({"text": "a", "other": 5}, 422, ["other", "string"]),
        ({"text": "word " * 300}, 413, ["text has 302 tokens", "256", "truncate"]),
        ({"text": "a", "other": "word " * 300}, 413, ["other has 302 tokens", "256"]),
        ({"text": "a", "pooling": "men"}, 422, ["did you mean 'mean'"]),
        ({"text": "a", "pooling": ["mean", "men"]}, 422, ["'men'", "did you mean 'mean'"]),
        ({"text": "a", "pooling": []}, 422, ["from 1 to 16"]),
        ({"text": "a", "pooling": ["mean"] * 17}, 422, ["17 poolings", "from 1 to 16"]),
        ({"text": "a", "pooling": [5]}, 422, ["a string, a list, or a mapping"]),
        ({"text": "a", "pooling": ["mean", "attention"]}, 422, ["learned", "weights: path/to/pooler"]),
        ({"text": "a", "matrix": True}, 422, ["send 'other' too"]),
        ({"text": "a " * 250, "pooling": CHAIN}, 413, ["steps over 252 tokens", "134217728", "fewer windows"]),
        ({"text": "a", "model": "men"}, 404, ["Did you mean 'mean'"]),
        ({"text": "a", "prompt_name": "query"}, 422, ["no prompt 'query'"]),
        ({"text": "a", "strategies": ["mean"]}, 422, ["'strategies' is not a field", "pooling"]),
        (
            {"text": "x " * 300, "other": "y " * 300, "truncate": True, "matrix": True, "pooling": ["mean"] * 16},
            413,
            ["1048576 entries", "524288", "fewer"],
        ),
    ],
)
def test_what_cannot_be_explained(http: httpx.Client, body: Any, status: int, words: list[str]) -> None:
    problem(http.post("/explain", json=body), status, *words)


def test_what_is_cut_is_not_explained(http: httpx.Client) -> None:
    (found,) = explained(http, text="word " * 300, truncate=True)
    assert len(found["tokens"]) == 256 and sum(token["share"] for token in found["tokens"]) == pytest.approx(1)


def test_what_the_other_text_is_for_needs_the_other_text(http: httpx.Client) -> None:
    answer = http.post("/explain", json={"text": TEXT, "other_input_type": "query"})
    problem(answer, 422, "other_input_type", "send 'other' too")
