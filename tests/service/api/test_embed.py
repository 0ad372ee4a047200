"""`/embed` and `/embed_all` against sentence-transformers and against pooling by hand."""

from __future__ import annotations

import csv
import random
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from tests.support.problems import problem

TOLERANCE = 1e-5
# Its root is steepest where cubes cancel: there the last bits of states show in the fifth digit.
GEM_TOLERANCE = 1e-4
ODD = [
    "a",
    "A",
    "!",
    "  leading and trailing white space \n",
    "tabs\tand\nline\r\nbreaks",
    "naïve café, Ünïcödé and e\u0301",
    "日本語の文章です。",
    "שלום עולם",
    "family 👨‍👩‍👧‍👦 and 🇩🇪 flags 🏳️‍🌈",
    "NUL \x00 inside",
    "zero\u200bwidth",
    "[brackets] spelled out [SEPARATE] [MASKS]",
    "<script>alert('x')</script> & \"quotes\" \\",
    "word " * 200,
    "Donaudampfschifffahrtsgesellschaftskapitän" * 3,
    "0123456789 3.14159 1e300",
]


def by_hand(states: np.ndarray, pooling: str) -> np.ndarray:
    """Token states (time, dim) -> the unit vector of a pooling."""
    weights = np.arange(1, len(states) + 1)[:, None]
    signed_cubes = (states**3).mean(0)
    pooled = {
        "cls": lambda: states[0],
        "last": lambda: states[-1],
        "mean": lambda: states.mean(0),
        "max": lambda: states.max(0),
        "weighted_mean": lambda: (states * weights).sum(0) / weights.sum(),
        "gem(p=3)": lambda: np.sign(signed_cubes) * np.abs(signed_cubes) ** (1 / 3),
        "mean + max": lambda: np.concatenate([states.mean(0), states.max(0)]),
    }[pooling]()
    return pooled / np.linalg.norm(pooled)


@pytest.fixture(scope="module")
def texts(data: Path) -> list[str]:
    with (data / "stsb-en" / "test.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [row[side] for row in rows[::45] for side in ("sentence1", "sentence2")] + ODD


@pytest.fixture(scope="module")
def expected(reference: SentenceTransformer, texts: list[str]) -> np.ndarray:
    return reference.encode(texts)


def embedded(http: httpx.Client, inputs: Any, **more: Any) -> np.ndarray:
    response = http.post("/embed", json={"inputs": inputs, **more})
    assert response.status_code == 200, response.text[:500]
    return np.array(response.json(), np.float32)


def test_one_text_and_many_are_as_sentence_transformers_has_them(
    http: httpx.Client, texts: list[str], expected: np.ndarray
) -> None:
    alone = np.concatenate([embedded(http, text) for text in texts])
    np.testing.assert_allclose(alone, expected, atol=TOLERANCE)
    np.testing.assert_allclose(embedded(http, texts), expected, atol=TOLERANCE)


@pytest.mark.slow
def test_order_and_neighbours_change_nothing(http: httpx.Client, texts: list[str], expected: np.ndarray) -> None:
    order = list(range(len(texts)))
    random.Random(1).shuffle(order)
    shuffled = embedded(http, [texts[place] for place in order])
    np.testing.assert_allclose(shuffled, expected[order], atol=TOLERANCE)
    long = "a much longer neighbour " * 40
    for place in order[:8]:
        among = embedded(http, [long, texts[place], long + "again", texts[place]])
        np.testing.assert_allclose(among[[1, 3]], expected[[place, place]], atol=TOLERANCE)


def test_concurrent_requests_for_mixed_poolings_each_get_their_own(
    http: httpx.Client, reference: SentenceTransformer, texts: list[str]
) -> None:
    states = [found.cpu().numpy() for found in reference.encode(texts, output_value="token_embeddings")]
    models = {"mean": "mean", "cls": "cls", "max": "max", "last": "last", "weighted_mean": "weighted_mean"}
    kinds = [({"model": name}, spec) for name, spec in (models | {"gem": "gem(p=3)"}).items()]
    kinds += [({"pooling": spec}, spec) for spec in ("cls", "last", "gem(p=3)", "mean + max", "weighted_mean")]
    kinds += [({"model": "max", "pooling": "mean"}, "mean")]
    rng = random.Random(2)
    requests = [(*rng.choice(kinds), rng.sample(range(len(texts)), rng.randint(1, 9))) for _ in range(60)]
    assert len({str(asked) for asked, _, _ in requests}) == len(kinds)

    def ask(request: tuple[dict[str, str], str, list[int]]) -> np.ndarray:
        asked, _, places = request
        return embedded(http, [texts[place] for place in places], **asked)

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(ask, requests))
    for (asked, spec, places), answer in zip(requests, answers, strict=True):
        wanted = np.array([by_hand(states[place], spec) for place in places])
        within = GEM_TOLERANCE if spec == "gem(p=3)" else TOLERANCE
        np.testing.assert_allclose(answer, wanted, atol=within, err_msg=str(asked))


@pytest.mark.parametrize("name", ["mean", "cls", "max", "last", "weighted_mean", "gem"])
def test_a_pooling_in_the_request_equals_the_model_configured_with_it(http: httpx.Client, name: str) -> None:
    spec = "gem(p=3)" if name == "gem" else name
    inputs = ["A man is playing a harp.", "pooling"]
    configured = embedded(http, inputs, model=name)
    np.testing.assert_allclose(embedded(http, inputs, model="mean", pooling=spec), configured, atol=1e-6)
    np.testing.assert_allclose(
        embedded(http, inputs, model="cls", pooling={"strategy": spec.split("(")[0]}), configured, atol=1e-6
    )


def test_normalize_and_dimensions(http: httpx.Client, reference: SentenceTransformer) -> None:
    text = "A man is playing a harp."
    states = reference.encode(text, output_value="token_embeddings").cpu().numpy()
    raw = states.mean(0)
    assert abs(np.linalg.norm(raw) - 1) > 0.1
    np.testing.assert_allclose(embedded(http, text, normalize=False)[0], raw, atol=TOLERANCE)
    np.testing.assert_allclose(embedded(http, text, normalize=False, dimensions=7)[0], raw[:7], atol=TOLERANCE)
    prefix = embedded(http, text, dimensions=7)[0]
    np.testing.assert_allclose(prefix, raw[:7] / np.linalg.norm(raw[:7]), atol=TOLERANCE)
    assert embedded(http, text, pooling="mean + max", dimensions=768).shape == (1, 768)


def test_a_long_text_is_cut_on_the_side_that_is_asked_for(http: httpx.Client, reference: SentenceTransformer) -> None:
    long = "river " * 200 + "piano " * 200  # words of one token, so that ids from the middle are a text's too
    refused = http.post("/embed", json={"inputs": ["short", long]})
    ids = reference.tokenizer(long, add_special_tokens=False)["input_ids"]
    body = problem(refused, 413, "inputs[1]", str(len(ids) + 2), "256", "truncate")
    assert (body["length"], body["limit"], body["where"]) == (len(ids) + 2, 256, "inputs[1]")

    right = embedded(http, long, truncate=True)
    np.testing.assert_allclose(right[0], reference.encode(long), atol=TOLERANCE)
    left = embedded(http, long, truncate=True, truncation_direction="left")
    framed = [reference.tokenizer.cls_token_id, *ids[-254:], reference.tokenizer.sep_token_id]
    by_ids = http.post("/v1/embeddings", json={"model": "mean", "input": framed}).json()["data"][0]["embedding"]
    np.testing.assert_allclose(left[0], by_ids, atol=TOLERANCE)
    assert np.abs(left - right).max() > 0.01
    np.testing.assert_array_equal(embedded(http, long, truncate=True, truncation_direction="Right"), right)
    np.testing.assert_array_equal(embedded(http, long, truncate=True, truncation_direction="Left"), left)


def test_embed_all_gives_the_states_that_embed_pools(http: httpx.Client) -> None:
    inputs = ["A man is playing a harp.", "short", "emoji 👍 and Ünïcödé"]
    for text, found in zip(inputs, http.post("/embed_all", json={"inputs": inputs}).json(), strict=True):
        states = np.array(found["states"])
        assert len(states) == len(found["tokens"]) == len(found["offsets"])
        for model in ("mean", "cls", "max", "last", "weighted_mean"):
            np.testing.assert_allclose(by_hand(states, model), embedded(http, text, model=model)[0], atol=TOLERANCE)


def test_offsets_are_characters_of_the_text_as_it_was_sent(http: httpx.Client) -> None:
    text = "  Ünïcödé embeddings: 👍🏽 Œuvre naïve, 日本!\n"
    found = http.post("/embed_all", json={"inputs": text}).json()[0]
    tokens, offsets = found["tokens"], found["offsets"]
    assert (tokens[0], tokens[-1]) == ("[CLS]", "[SEP]")
    assert offsets[0] is None and offsets[-1] is None
    slices = [text[start:end] for start, end in offsets[1:-1]]
    assert "".join(slices) == "".join(text.split())
    for token, piece in zip(tokens[1:-1], slices, strict=True):
        plain = "".join(c for c in unicodedata.normalize("NFD", piece.lower()) if not unicodedata.combining(c))
        assert token in ("[UNK]", plain, f"##{plain}")
    assert "👍🏽" in slices and "日" in slices and tokens.count("[UNK]") < len(tokens) / 2


@pytest.mark.parametrize("count", [63, 64, 65, 200])
def test_a_long_answer_is_written_in_parts_and_is_whole(http: httpx.Client, count: int) -> None:
    inputs = [f"word number {number}" for number in range(count)]
    answer = http.post("/embed", json={"inputs": inputs, "normalize": False})
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert answer.headers["content-type"] == "application/json"
    few = np.concatenate(
        [embedded(http, inputs[start : start + 20], normalize=False) for start in range(0, count, 20)]
    )
    np.testing.assert_allclose(np.array(answer.json()), few, atol=TOLERANCE)
    assert len({tuple(row) for row in answer.json()}) == count


def test_token_states_of_long_texts_are_whole(http: httpx.Client) -> None:
    inputs = ["word " * 250, "short", "other " * 100]
    found = http.post("/embed_all", json={"inputs": inputs}).json()
    assert [np.array(text["states"]).shape for text in found] == [(252, 384), (3, 384), (102, 384)]
    for text, one in zip(found, inputs, strict=True):
        np.testing.assert_allclose(by_hand(np.array(text["states"]), "mean"), embedded(http, one)[0], atol=TOLERANCE)


def test_embed_all_refuses_more_states_than_it_can_hold(http: httpx.Client) -> None:
    answer = http.post("/embed_all", json={"inputs": ["word " * 250] * 80})
    body = problem(answer, 413, "16384", "fewer or shorter texts")
    assert body["length"] == 80 * 252


def test_unknown_prompt(http: httpx.Client) -> None:
    problem(http.post("/embed", json={"inputs": "a", "prompt_name": "query"}), 422, "'query'", "none")
