"""`/pool` against numbers that were worked out by hand."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest

from tests.support.problems import problem

CHAIN = " > ".join(["window(2, 1, by=max)"] * 31 + ["mean"])
PROJECTED = "multihead_attention(split_heads=true, projection=true)"
FOUR = [[0.5, 0.3], [0.8, -0.2], [0.1, 0.9], [-0.3, 0.5]]


def pooled(http: httpx.Client, states: Any, *poolings: str, **more: Any) -> list[dict[str, Any]]:
    answer = http.post("/pool", json={"states": states, "pooling": list(poolings), **more})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["poolings"]
    return found


def test_four_tokens_in_two_dimensions(http: httpx.Client) -> None:
    found = pooled(http, FOUR, "mean", "max", "cls", "last", "attention", query=[0.7, -0.5])
    vectors = [[0.275, 0.375], [0.8, 0.9], [0.5, 0.3], [-0.3, 0.5], [0.405, 0.254]]
    for each, vector in zip(found, vectors, strict=True):
        np.testing.assert_allclose(each["vector"], vector, atol=1e-3)
    np.testing.assert_allclose(found[4]["weights"], [0.272, 0.377, 0.180, 0.171], atol=1e-3)
    assert found[1]["weights"] == [[0, 0], [1, 0], [0, 1], [0, 0]]


def test_padding_and_the_mask(http: httpx.Client) -> None:
    states = [[0.6, 0.4], [0.8, 0.2], [0.3, 0.7], [0.1, 0.05]]
    ((without,), (masked,)) = pooled(http, states, "mean"), pooled(http, states, "mean", counts=[True] * 3 + [False])
    np.testing.assert_allclose(without["vector"], [0.45, 0.3375])
    np.testing.assert_allclose(masked["vector"], [0.567, 0.433], atol=1e-3)
    assert masked["weights"][3] == 0 and masked["gradient"][3] == [0, 0]


def test_the_power_mean_lies_between_the_mean_and_the_max(http: httpx.Client) -> None:
    found = pooled(http, [[1.0], [0.5], [2.0], [0.3]], "gem(p=1)", "gem(p=3)", "gem(p=10)", "max")
    np.testing.assert_allclose([each["vector"][0] for each in found], [0.95, 1.318, 1.741, 2.0], atol=1e-3)


def test_windows_and_segments(http: httpx.Client) -> None:
    twin = [[0.2], [0.8], [0.1], [0.9]]
    largest, mean = pooled(http, twin, "piecewise(n=2)", "piecewise(n=2, by=mean)")
    assert largest["vector"] == [0.8, 0.9]
    np.testing.assert_allclose(mean["vector"], [0.5, 0.5])
    (seven,) = pooled(http, [[float(number)] for number in range(7)], "piecewise(n=2, by=mean)")
    np.testing.assert_allclose(seven["vector"], [1.5, 4.5])  # tokens 0 to 3, and 3 to 6


def test_gradients_go_to_the_winner_of_max_and_to_all_of_mean(http: httpx.Client) -> None:
    largest, mean = pooled(http, [[1.2], [0.5], [0.3], [2.7]], "max", "mean")
    assert largest["gradient"] == [[0], [0], [0], [1]]
    assert mean["gradient"] == [[0.25]] * 4


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"states": []}, 422, "there are no states"),
        ({"states": [[]]}, 422, "there are no states"),
        ({"states": [[1, 2], [1]]}, 422, "states[1] has 1 numbers, and the first one 2"),
        ({"counts": [True]}, 422, "there are 1 counts for 4 states"),
        ({"counts": [False] * 4}, 422, "no token counts"),
        ({"query": [1]}, 422, "the query has 1 numbers, and states have 2"),
        ({"pooling": "maen"}, 422, "mean"),
        ({"pooling": []}, 422, "0 poolings are asked for"),
        ({"pooling": None}, 422, "pooling"),
        ({"pooling": 'token("[MASK]")'}, 422, "needs the tokens themselves"),
        ({"pooling": "mean + attention > max"}, 422, "pooling"),
        ({"states": [[1e308], [1e308]], "pooling": "gem(p=3)"}, 422, "numbers"),
        ({"states": [["1"]]}, 422, "states[0][0]"),
        ({"states": [[0.5]] * 513, "pooling": "window(2, 1) > mean"}, 413, "states of 513 tokens"),
        ({"states": [[0.5] * 1000] * 70}, 413, "there are 70 states of 1000 numbers"),
        ({"states": [[0.5] * 600] * 100, "pooling": "max + mean"}, 413, "1200 dimensions"),
        ({"states": [[0.5] * 128] * 512, "pooling": ["mean", CHAIN]}, 413, "steps over 512 tokens"),
        ({"states": [[0.5] * 8192], "pooling": PROJECTED}, 413, "67117056 parameters over states of 8192 numbers"),
        ({"states": [[0.5] * 4096], "pooling": f"{PROJECTED} + {PROJECTED} + {PROJECTED}"}, 413, "parameters"),
        ({"pooling": {"strategy": "concatenation", "parts": [["mean"] * 32] * 64}}, 422, "may ask for one of 10000"),
    ],
)
def test_what_is_refused(http: httpx.Client, body: dict[str, Any], status: int, words: str) -> None:
    assert words in problem(http.post("/pool", json={"states": FOUR, "pooling": "mean"} | body), status)["detail"]


def test_a_refusal_does_not_repeat_a_long_pooling(http: httpx.Client) -> None:
    answer = http.post("/pool", json={"states": FOUR, "pooling": {"strategy": "m" * 9000}})
    assert len(answer.content) < 1000, answer.text


def test_a_projection_is_pooled_up_to_its_limit(http: httpx.Client) -> None:
    (found,) = pooled(http, [[0.5] * 4096], PROJECTED)
    assert found["vector"] == [0.5] * 4096
