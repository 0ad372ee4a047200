"""`/perturb` against what `/embed` gives for the same texts, and what holds for any weights."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.problems import problem

TEXT = "The old mill by the pond grinds no more grain, and a naïve 日本 guest 👩‍🌾 asks why."
SPECS: list[Any] = ["mean", "cls", "max", "gem(p=3)", "mean + max", "window(size=3, stride=2, by=max) > mean"]
NOTHING = {"noise": 0, "filler": 0, "swaps": 0, "replaced": 0, "keep": 1, "padding": 0}
CHAIN = " > ".join(["window(2, 1, by=max)"] * 31 + ["mean"])

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40).map(lambda text: f"mill {text}")
changes = st.fixed_dictionaries(
    {},
    optional={
        "noise": st.floats(0, 2),
        "filler": st.integers(0, 16),
        "swaps": st.integers(0, 64),
        "replaced": st.floats(0, 1),
        "keep": st.floats(0, 1),
        "padding": st.integers(0, 64),
    },
)


def perturbed(http: httpx.Client, *changes: Any, text: str = TEXT, **body: Any) -> dict[str, Any]:
    answer = http.post("/perturb", json={"text": text, "changes": changes, "model": "mean"} | body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def outcomes(http: httpx.Client, *changes: Any, **body: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = perturbed(http, *changes, **body)["changes"]
    return found


def test_a_change_of_nothing_moves_nothing(http: httpx.Client) -> None:
    found = perturbed(http, {}, NOTHING, pooling=SPECS)
    assert found["poolings"][:4] == ["mean", "cls", "max", "gem(p=3.0)"]
    for each in found["changes"]:
        assert each["text"] == TEXT and not each["truncated"] and each["padding"] == 0
        assert each["tokens"] == found["tokens"] and each["without_mask"] == pytest.approx(1)
        np.testing.assert_allclose(each["cosines"], 1)
    assert found["limit"] == http.get("/info").json()["models"]["mean"]["max_tokens"]


@pytest.mark.slow
def test_cosines_are_those_of_what_embed_gives_for_the_disturbed_text(http: httpx.Client) -> None:
    disturbed = [
        {"filler": 2},
        {"swaps": 5},
        {"replaced": 0.5},
        {"keep": 0.4},
        {"keep": 0.6, "swaps": 2, "filler": 1},
    ]
    found = outcomes(http, *disturbed, pooling=SPECS)
    for place, spec in enumerate(SPECS):
        body = {"inputs": [TEXT, *(each["text"] for each in found)], "pooling": spec, "model": "mean"}
        clean, *vectors = np.array(http.post("/embed", json=body).json())
        cosines = [vector @ clean / np.linalg.norm(vector) / np.linalg.norm(clean) for vector in vectors]
        np.testing.assert_allclose([each["cosines"][place] for each in found], cosines, atol=1e-5)
    assert len({each["text"] for each in found} - {TEXT}) == len(disturbed)


def test_padding_moves_the_mean_without_the_mask_alone(http: httpx.Client) -> None:
    counts = [0, 1, 8, 64, 256]
    found = perturbed(http, *({"padding": count} for count in counts), pooling=SPECS)
    for each, count in zip(found["changes"], counts, strict=True):
        assert each["padding"] == min(count, found["limit"] - found["tokens"])
        assert each["tokens"] == found["tokens"] and each["text"] == TEXT
        np.testing.assert_allclose(each["cosines"], 1, atol=1e-5)
    without = [each["without_mask"] for each in found["changes"]]
    assert without[0] == pytest.approx(1) and max(without[2:]) < 0.999


def test_noise_is_the_same_but_for_its_level(http: httpx.Client) -> None:
    found = outcomes(http, {"noise": 0}, {"noise": 1e-4}, {"noise": 1}, {"noise": 1, "padding": 9}, pooling=SPECS)
    np.testing.assert_allclose(found[0]["cosines"], 1)
    np.testing.assert_allclose(found[1]["cosines"], 1, atol=1e-6)
    assert max(found[2]["cosines"]) < 0.999
    np.testing.assert_allclose(found[2]["cosines"], found[3]["cosines"], atol=1e-5)
    assert outcomes(http, {"noise": 1}, pooling=SPECS)[0]["cosines"] == pytest.approx(found[2]["cosines"], abs=1e-6)


def test_at_least_one_token_is_kept_and_all_of_them_are_the_text(http: httpx.Client) -> None:
    one, half, whole = outcomes(http, {"keep": 0}, {"keep": 0.5}, {"keep": 1}, text="mill pond wheel grain ")
    assert [one["text"], half["text"], whole["text"]] == ["mill", "mill pond", "mill pond wheel grain "]
    assert [each["tokens"] for each in (one, half, whole)] == [3, 4, 6]


def test_more_of_a_change_keeps_what_was_less_of_it(http: httpx.Client) -> None:
    one, two, many = outcomes(http, {"filler": 1}, {"filler": 2}, {"filler": 16})
    assert two["text"].startswith(one["text"]) and many["text"].startswith(two["text"])
    words = "a b c d e f g"
    first, *_, last = [each["text"] for each in outcomes(http, {"swaps": 1}, {"swaps": 64}, text=words)]
    assert sum(old != new for old, new in zip(words.split(), first.split(), strict=True)) == 2
    assert sorted(last.split()) == words.split() != last.split()


def test_a_text_that_filler_makes_too_long_is_cut_or_refused(http: httpx.Client) -> None:
    long = "harp " * 250
    (found,) = outcomes(http, {"filler": 4}, text=long, truncate=True)
    assert found["truncated"] and found["tokens"] == 256
    body = {"text": long, "changes": [{}, {"filler": 4}], "model": "mean", "truncate": False}
    assert "changes[1] has" in problem(http.post("/perturb", json=body), 413)["detail"]


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(text=texts, change=changes)
def test_any_text_and_change_is_answered(http: httpx.Client, text: str, change: Any) -> None:
    answer = http.post("/perturb", json={"text": text, "changes": [change], "model": "mean", "truncate": True})
    if answer.status_code == 422:  # one of which no token was left
        assert "changes[0] has no token" in answer.json()["detail"]
        return
    (found,) = answer.json()["changes"]
    assert all(-1 <= cosine <= 1 for cosine in [*found["cosines"], found["without_mask"]])
    assert found["text"].strip() and found["tokens"] + found["padding"] <= answer.json()["limit"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"changes": []}, 422, "at least 1 item"),
        ({"changes": [{}] * 33}, 422, "at most 32 items"),
        ({"changes": [{"noise": 2.1}]}, 422, "changes[0].noise"),
        ({"changes": [{"filler": 17}]}, 422, "changes[0].filler"),
        ({"changes": [{}, {"swaps": -1}]}, 422, "changes[1].swaps"),
        ({"changes": [{"replaced": "0.5"}]}, 422, "changes[0].replaced"),
        ({"changes": [{"keep": 1.5}]}, 422, "changes[0].keep"),
        ({"changes": [{"padding": 257}]}, 422, "changes[0].padding"),
        ({"changes": [{"paddign": 2}]}, 422, "padding"),
        ({"text": ""}, 422, "text is empty"),
        ({"text": "a" * 65_537}, 413, "text has 65537 characters"),
        ({"text": "harp " * 300, "truncate": False}, 413, "text has"),
        ({"pooling": []}, 422, "0 poolings are asked for"),
        ({"pooling": "maen"}, 422, "mean"),
        ({"text": "harp " * 200, "pooling": CHAIN}, 413, "steps over 202 tokens"),
        ({"text": "harp " * 60, "pooling": CHAIN, "changes": [{"noise": 1}] * 32}, 413, "steps over 1984 tokens"),
        ({"text": "harp", "model": "none"}, 404, "none"),
    ],
)
def test_what_is_refused(http: httpx.Client, body: dict[str, Any], status: int, words: str) -> None:
    sent = {"text": "harp", "changes": [{}], "model": "mean"} | body
    assert words in problem(http.post("/perturb", json=sent), status)["detail"]


def test_where_too_many_tokens_come_from_is_said(http: httpx.Client) -> None:
    body = {"text": "harp " * 200, "changes": [{"filler": count} for count in range(16)], "truncate": True}
    found = problem(http.post("/perturb", json=body), 413, "2048")
    assert found["where"] == "changes" and found["length"] > 2048
