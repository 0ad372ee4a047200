"""`/compare` against what `/embed` and `/explain` give for the same texts."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest

from tests.support.problems import problem

TEXTS = ["A man is playing a harp in the naïve 日本 rain.", "Someone plays the harp 👨‍👩‍👧.", "harp"]
SPECS: list[Any] = ["mean", "cls", "max", "gem(p=3)", "mean + max", "window(size=3, stride=2, by=max) > mean"]

CHAIN = " > ".join(["window(2, 1, by=max)"] * 31 + ["mean"])
PIECES = "piecewise(n=64) + piecewise(n=64)"


def compared(http: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = http.post("/compare", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_vectors_and_cosines_are_those_of_embed(http: httpx.Client) -> None:
    found = compared(http, texts=TEXTS, pooling=SPECS, model="mean", numbers=5)
    assert [view["pooling"] for view in found["views"]][:4] == ["mean", "cls", "max", "gem(p=3.0)"]
    for spec, view in zip(SPECS, found["views"], strict=True):
        vectors = np.array(http.post("/embed", json={"inputs": TEXTS, "pooling": spec, "model": "mean"}).json())
        assert view["dimension"] == vectors.shape[1]
        np.testing.assert_allclose([text["vector"] for text in view["texts"]], vectors[:, :5], atol=2e-6)
        units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        np.testing.assert_allclose(view["cosines"], units @ units.T, atol=2e-6)


def test_norms_are_those_before_normalising(http: httpx.Client) -> None:
    found = compared(http, texts=TEXTS, pooling=["mean", "max"], model="mean")
    for spec, view in zip(["mean", "max"], found["views"], strict=True):
        body = {"inputs": TEXTS, "pooling": spec, "model": "mean", "normalize": False}
        norms = np.linalg.norm(http.post("/embed", json=body).json(), axis=1)
        np.testing.assert_allclose([text["norm"] for text in view["texts"]], norms, rtol=1e-5)


def test_tokens_and_shares_are_those_of_explain(http: httpx.Client) -> None:
    found = compared(http, texts=TEXTS, pooling=SPECS, model="mean", numbers=0)
    for place, text in enumerate(TEXTS):
        answer = http.post("/explain", json={"text": text, "pooling": SPECS, "model": "mean"}).json()
        for view, explanation in zip(found["views"], answer["explanations"], strict=True):
            tokens = [{**token, "share": share} for token, share in _shared(found, view, place)]
            assert [token | {"share": None} for token in tokens] == [
                token | {"share": None} for token in explanation["tokens"]
            ]
            shares = [token["share"] for token in explanation["tokens"]]
            np.testing.assert_allclose([token["share"] for token in tokens], shares, atol=1e-6)
            assert view["texts"][place]["vector"] == []


def test_the_model_s_own_pooling_unless_given(http: httpx.Client) -> None:
    found = compared(http, texts=["harp"])
    assert len(found["views"]) == 1 and found["views"][0]["cosines"] == [[1.0]]
    assert len(found["views"][0]["texts"][0]["vector"]) == 8
    assert found["limit"] == http.get("/info").json()["models"][found["model"]]["max_tokens"]


def test_a_text_that_is_cut_says_so(http: httpx.Client) -> None:
    found = compared(http, texts=["harp", "harp " * 600], truncate=True, numbers=0)
    assert [text["truncated"] for text in found["texts"]] == [False, True]
    assert len(found["texts"][1]["tokens"]) == found["limit"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"texts": []}, 422, "0 texts are sent; one request compares from 1 to 64"),
        ({"texts": ["harp"] * 65}, 422, "65 texts are sent"),
        ({"texts": ["harp", ""]}, 422, "texts[1]"),
        ({"texts": ["harp"], "pooling": []}, 422, "0 poolings are asked for"),
        ({"texts": ["harp"], "pooling": "maen"}, 422, "mean"),
        ({"texts": ["harp"], "numbers": -1}, 422, "numbers"),
        ({"texts": ["harp " * 600]}, 413, "texts[0]"),
        ({"texts": ["harp " * 60] * 60}, 413, "2048"),
        ({"texts": ["harp"] * 64, "pooling": [PIECES] * 16, "numbers": 65_536}, 413, "hold"),
        ({"texts": ["harp " * 10] * 64, "pooling": PIECES}, 413, "768 tokens together"),
        ({"texts": ["harp " * 30] * 60, "pooling": CHAIN}, 413, "steps over 1920 tokens"),
        ({"texts": ["harp"], "model": "none"}, 404, "none"),
    ],
)
def test_what_is_refused(http: httpx.Client, body: dict[str, Any], status: int, words: str) -> None:
    assert words in problem(http.post("/compare", json=body), status)["detail"]


def _shared(found: dict[str, Any], view: dict[str, Any], place: int) -> list[tuple[dict[str, Any], float]]:
    return list(zip(found["texts"][place]["tokens"], view["texts"][place]["shares"], strict=True))
