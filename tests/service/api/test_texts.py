"""Bodies and texts as people send them: byte order marks, halves of surrogate pairs, text without an end."""

from __future__ import annotations

import random
import string

import httpx
import pytest

from tests.support.problems import openai_problem, problem
from tests.support.tiers import first_fast

JSON = {"content-type": "application/json"}
BOM = b"\xef\xbb\xbf"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/embed", b'{"inputs": ["fine"]}'),
        ("/v1/embeddings", b'{"model": "mean", "input": "fine"}'),
        ("/explain", b'{"text": "fine"}'),
        ("{collection}/documents", b'{"documents": [{"id": "1", "text": "fine"}]}'),
        ("{collection}/search", b'{"query": "fine"}'),
    ],
)
def test_a_byte_order_mark_before_a_body_is_skipped(
    http: httpx.Client, collection: str, path: str, body: bytes
) -> None:
    answer = http.post(path.format(collection=collection), content=BOM + body, headers=JSON)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("path", "body", "place"),
    [
        ("/embed", rb'{"inputs": ["fine", "cut \ud83d"]}', "inputs[1]"),
        ("/embed", rb'{"inputs": ["\ud83d\ude00", "a", "\ude00\ud83d"]}', "inputs[2]"),
        ("/embed", rb'{"inputs": "\udfff"}', "inputs"),
        ("/embed", b'{"inputs": ["fine", "latin \xe9"]}', "inputs[1]"),
        ("/embed", b'{"inputs": ["fine", "\xed\xa0\xbd"]}', "inputs[1]"),
        ("/embed_spans", rb'{"inputs": ["fine", "\ud800 x"], "spans": {"by": "sentence"}}', "inputs[1]"),
        ("/explain", rb'{"text": "fine", "other": "\ud800"}', "other"),
        ("{collection}/documents", rb'{"documents": [{"id": "1", "text": "\ud800"}]}', "documents[0].text"),
        (
            "{collection}/documents",
            rb'{"documents": [{"id": "1", "text": "a", "metadata": {"k": ["\ud800"]}}]}',
            "documents[0].metadata.k[0]",
        ),
        ("{collection}/search", rb'{"queries": ["fine", "\ud800"]}', "queries[1]"),
        ("/embed", rb'{"inputs": "a", "\ud800": 1}', ""),
    ],
)
def test_half_a_surrogate_pair_names_its_text(
    http: httpx.Client, collection: str, path: str, body: bytes, place: str
) -> None:
    answer = problem(http.post(path.format(collection=collection), content=body, headers=JSON), 400, "JSON", place)
    assert (answer["code"], answer.get("where", "")) == ("invalid_json", place)


def test_half_a_surrogate_pair_for_clients_of_openai(http: httpx.Client) -> None:
    body = rb'{"model": "mean", "input": ["fine", "cut \ud83d"]}'
    error = openai_problem(http.post("/v1/embeddings", content=body, headers=JSON), 400, "input[1]")
    assert error["param"] == "input[1]"


def test_what_is_no_json_for_another_reason_names_no_text(http: httpx.Client) -> None:
    assert "where" not in problem(http.post("/embed", content=rb'{"inputs": "\ud800', headers=JSON), 400, "JSON")


def test_all_texts_without_tokens_are_told(http: httpx.Client) -> None:
    answer = http.post("/embed", json={"inputs": ["a", "\u200b", "b", "\u0001"]})
    assert problem(answer, 422, "inputs[1]", "no token")["without_tokens"] == [1, 3]


_LETTERS = random.Random(0).choices(string.ascii_letters + string.digits + "+/", k=2000)
LONG = {
    "words": "the mill wheel turns slowly " * 80,
    "a list": ", ".join(f"item {n}" for n in range(300)),
    "base64": "".join(_LETTERS),
    "one huge line": "grain and water, " * 1500,
    "between sentences": f"A short one. {'never ending ' * 400}. Another.",
    "without spaces": "水車小屋" * 500,
}


@pytest.mark.parametrize("kind", first_fast(LONG))
def test_a_sentence_is_no_longer_than_the_model_reads(http: httpx.Client, kind: str) -> None:
    text = LONG[kind]
    limit = http.get("/info").json()["models"]["mean"]["max_tokens"]
    body = {"inputs": text, "model": "mean", "spans": {"by": "sentence"}, "dimensions": 2}
    late = http.post("/embed_spans", json=body).json()[0]["spans"]
    early = http.post("/embed_spans", json=body | {"mode": "early"})
    assert early.status_code == 200, early.text
    assert early.json()[0]["spans"] == late
    assert len(late) > 1
    assert "".join(text.split()) == "".join("".join(text[start:end].split()) for start, end in late)
    for start, end in late:
        read = http.post("/v1/embeddings", json={"model": "mean", "input": text[start:end]}).json()["usage"]
        assert read["prompt_tokens"] <= limit


def test_sentences_that_fit_stay_whole(http: httpx.Client) -> None:
    text = "One is short. Then " + "harp " * 240 + ". " + "Two. " * 100
    body = {"inputs": text, "model": "mean", "spans": {"by": "sentence"}, "dimensions": 2}
    spans = http.post("/embed_spans", json=body).json()[0]["spans"]
    assert [text[start:end].count("harp") for start, end in spans][:2] == [0, 240]
