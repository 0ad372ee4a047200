"""Collections of documents that are cut into spans: hits are spans, with the vectors that `/embed_spans` gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import httpx
import numpy as np
import pytest

from tests.service.api.test_reindex import ended
from tests.support.problems import problem

HARP = "A man is playing a harp by the pond. It rains, and nobody listens! Then the naïve 日本 cat comes."
BREAD = "Bread is baked from flour and water. The oven is hot. A baker kneads the dough at night."
LONG = " ".join(f"The {word} of the {other} is old." for word in HARP.split() for other in BREAD.split()[:6])
TEXTS = {"harp": HARP, "bread": BREAD, "long": LONG}
SPANS = {"harp": [[0, 36], [37, 66], [67, 95]], "bread": [[0, 53], [18, 36]], "long": [[0, 30], [1500, 3000]]}
DOCUMENTS = [{"id": name, "text": text, "metadata": {"letters": len(text)}} for name, text in TEXTS.items()]
GIVEN = [document | {"spans": SPANS[document["id"]]} for document in DOCUMENTS]
CHUNKINGS: list[dict[str, Any]] = [
    {"tokens": 8, "overlap": 3},
    {"tokens": 12, "mode": "early"},
    {"by": "sentence", "mode": "late"},
    {"by": "given"},
]

Create = Callable[..., str]


@pytest.fixture
def create(http: httpx.Client) -> Iterator[Create]:
    """Makes a collection; gives its path."""
    made = []

    def create(chunking: Any, **more: Any) -> str:
        made.append(f"/collections/test-{uuid4().hex[:12]}")
        assert http.put(made[-1], json={"chunking": chunking, **more}).status_code == 201
        return made[-1]

    yield create
    for path in made:
        http.delete(path)


def store(http: httpx.Client, path: str, documents: list[dict[str, Any]], **more: Any) -> dict[str, int]:
    answer = http.post(f"{path}/documents", json={"documents": documents, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


def search(http: httpx.Client, path: str, **body: Any) -> list[dict[str, Any]]:
    answer = http.post(f"{path}/search", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["hits"]


def documents_for(chunking: dict[str, Any]) -> list[dict[str, Any]]:
    return GIVEN if chunking.get("by") == "given" else DOCUMENTS


def ranked(http: httpx.Client, chunking: dict[str, Any], query: str) -> list[tuple[str, tuple[int, int], float]]:
    """By `/embed_spans` and `/embed` alone: id, span and cosine, best first."""
    unit = np.array(http.post("/embed", json={"inputs": query}).json()[0])
    body: dict[str, Any] = {"inputs": list(TEXTS.values()), "mode": chunking.get("mode", "late")}
    cut = {key: value for key, value in chunking.items() if key != "mode"}
    body["spans"] = list(SPANS.values()) if chunking.get("by") == "given" else cut
    found = http.post("/embed_spans", json=body).json()
    rows = [
        (name, tuple(span), float(np.dot(vector, unit)))
        for name, text in zip(TEXTS, found, strict=True)
        for span, vector in zip(text["spans"], text["vectors"], strict=True)
    ]
    return sorted(rows, key=lambda row: -row[2])


def shown(hits: list[dict[str, Any]]) -> list[tuple[str, tuple[int, int], float]]:
    return [(hit["id"], (hit["span"]["start"], hit["span"]["end"]), hit["score"]) for hit in hits]


def same(left: list[Any], right: list[Any]) -> bool:
    """The same spans with the same scores, in an order that those allow."""
    scores = {row[:2]: row[2] for row in left}
    in_order = [score for *_, score in left] == pytest.approx([score for *_, score in right], abs=1e-5)
    return in_order and scores == pytest.approx({row[:2]: row[2] for row in right}, abs=1e-5)


@pytest.mark.parametrize("chunking", CHUNKINGS)
def test_hits_are_spans_as_embed_spans_has_them(http: httpx.Client, create: Create, chunking: dict[str, Any]) -> None:
    path = create(chunking)
    documents = documents_for(chunking)
    assert store(http, path, documents) == {"upserted": 3, "unchanged": 0}
    assert store(http, path, documents) == {"upserted": 3, "unchanged": 3}
    query = "freshly baked loaves"
    expected = ranked(http, chunking, query)
    hits = search(http, path, query=query, k=10_000)
    assert same(shown(hits), expected)
    for hit in hits:
        assert hit["text"] == TEXTS[hit["id"]] and hit["metadata"] == {"letters": len(hit["text"])}
        span = hit["span"]
        assert span["text"] == hit["text"][span["start"] : span["end"]]
    about = http.get(path).json()
    assert (about["count"], about["chunks"]) == (3, len(expected))
    assert shown(search(http, path, query=query, k=5)) == shown(hits[:5])
    # One hit a document
    best = {row[0]: row for row in reversed(shown(hits))}
    grouped = shown(search(http, path, query=query, k=2, group="document"))
    assert [row[0] for row in grouped] == sorted(best, key=lambda name: -best[name][2])[:2]
    assert same(grouped, [best[row[0]] for row in grouped])
    assert len(search(http, path, query=query, k=10_000, group="document")) == 3
    # Filters, fields, several queries, a vector
    condition = {"letters": len(HARP)}
    few = search(http, path, query=query, k=10_000, filter=condition)
    assert shown(few) == [row for row in shown(hits) if row[0] == "harp"]
    assert len(search(http, path, query=query, filter=condition, group="document")) == 1
    for include in ([], ["span"], ["text"], ["metadata", "span"]):
        assert search(http, path, query=query, k=1, include=include)[0].keys() == {"id", "score", *include}
    body = {"queries": [query, "music"], "k": 3, "group": "document"}
    results = http.post(f"{path}/search", json=body).json()["results"]
    assert same(shown(results[0]["hits"]), shown(search(http, path, query=query, k=3, group="document")))
    vector = http.post("/embed", json={"inputs": query}).json()[0]
    for group in (None, "document"):
        by_vector = search(http, path, vector=vector, k=3, group=group)
        assert same(shown(by_vector), shown(search(http, path, query=query, k=3, group=group)))
    # Documents, replaced and deleted
    fetched = http.get(f"{path}/documents/bread").json()
    assert {key: fetched[key] for key in ("id", "text", "metadata")} == DOCUMENTS[1]
    assert sorted(map(tuple, fetched["spans"])) == sorted(span for name, span, _ in expected if name == "bread")
    spans = {"spans": [[0, 9]]} if chunking.get("by") == "given" else {}
    store(http, path, [{"id": "bread", "text": "A new one", **spans}])
    assert http.delete(f"{path}/documents/long").status_code == 204
    left = shown(search(http, path, query=query, k=10_000))
    assert [row for row in left if row[0] != "bread"] == [row for row in shown(hits) if row[0] == "harp"]
    assert [row[:2] for row in left if row[0] == "bread"] == [("bread", (0, 9))]


@pytest.mark.slow
def test_grouping_is_exact_where_one_document_has_hundreds_of_the_best(http: httpx.Client, create: Create) -> None:
    path = create({"tokens": 6})
    near = " ".join(f"The harp plays music number {place}." for place in range(300))
    others = [{"id": str(place), "text": f"Bread and {word}."} for place, word in enumerate(BREAD.split())]
    store(http, path, [{"id": "near", "text": near}, *others])
    assert http.get(path).json()["chunks"] > 300 + len(others)
    query = "the harp plays music"
    hits = search(http, path, query=query, k=10_000)
    assert len({hit["id"] for hit in hits[:250]}) == 1
    best = list({hit["id"]: hit for hit in reversed(hits)}.values())
    best.sort(key=lambda hit: -hit["score"])
    for k in (1, 2, 10, 100):
        assert same(shown(search(http, path, query=query, k=k, group="document")), shown(best[:k]))


def test_a_whole_collection_has_no_spans(http: httpx.Client, collection: str) -> None:
    store(http, collection, DOCUMENTS[:2])
    hits = search(http, collection, query="music")
    assert hits == search(http, collection, query="music", group="document")
    assert hits[0].keys() == {"id", "score", "text", "metadata"}
    assert http.get(collection).json().keys().isdisjoint({"chunking", "chunks"})
    assert search(http, collection, query="music", include=["span"])[0].keys() == {"id", "score"}


def test_chunking_is_part_of_the_definition(http: httpx.Client, create: Create) -> None:
    path = create({"tokens": 8, "overlap": 0})
    told = {"by": "tokens", "tokens": 8, "overlap": 0, "mode": "late"}
    assert http.get(path).json()["chunking"] == told
    listed = {item["name"]: item for item in http.get("/collections").json()["collections"]}
    assert listed[path.rpartition("/")[2]]["chunking"] == told
    for equal in ({"tokens": 8}, {"by": "tokens", "tokens": 8, "mode": "late"}):
        assert http.put(path, json={"chunking": equal}).status_code == 200
    for other in ({"tokens": 9}, {"tokens": 8, "overlap": 1}, {"tokens": 8, "mode": "early"}, {"by": "given"}, None):
        asked = "nothing" if other is None else '"by"'
        body = problem(http.put(path, json={"chunking": other}), 409, "chunking: stored", '"tokens": 8', asked)
        assert body["stored"]["chunking"] == told
    whole = create(None)
    problem(http.put(whole, json={"chunking": {"tokens": 8}}), 409, "chunking: stored nothing, asked", "reindex")


@pytest.mark.parametrize(
    ("chunking", "words"),
    [
        ({}, ["'tokens' must say how many"]),
        ({"tokens": 0}, ["chunking.tokens", "greater than or equal to 1"]),
        ({"tokens": 65_537}, ["chunking.tokens", "65536"]),
        ({"tokens": 4, "overlap": 4}, ["'overlap' must be less than 'tokens'"]),
        ({"by": "given", "tokens": 4}, ["'by': 'given' takes neither"]),
        ({"by": "sentence", "overlap": 4}, ["'by': 'sentence' takes neither"]),
        ({"by": "words"}, ["chunking.by", "'tokens', 'sentence' or 'given'"]),
        ({"by": "sentence", "mode": "lately"}, ["chunking.mode", "'late' or 'early'"]),
        ({"token": 4}, ["chunking.token", "Did you mean 'tokens'?"]),
        ("sentence", ["chunking", "object"]),
        ([4], ["chunking", "object"]),
    ],
)
def test_chunkings_that_cannot_be(http: httpx.Client, collection: str, chunking: Any, words: list[str]) -> None:
    problem(http.put("/collections/never", json={"chunking": chunking}), 422, *words)
    problem(http.post(f"{collection}/reindex", json={"chunking": chunking}), 422, *words)
    assert http.get("/collections/never").status_code == 404


@pytest.mark.parametrize(
    ("chunking", "bad", "status", "words"),
    [
        ({"by": "given"}, {"text": HARP}, 422, ["documents[1] (id 'bad') has no 'spans'", "[[start, end], ...]"]),
        ({"by": "given"}, {"text": HARP, "spans": []}, 422, ["documents[1].text (id 'bad') has no span"]),
        ({"by": "given"}, {"text": HARP, "spans": [[0, 5], [9, 9]]}, 422, ["(id 'bad'), span 1 is [9, 9]", "empty"]),
        ({"by": "given"}, {"text": HARP, "spans": [[9, 4]]}, 422, ["(id 'bad'), span 0 is [9, 4]", "reversed"]),
        ({"by": "given"}, {"text": HARP, "spans": [[0, 96]]}, 422, ["(id 'bad'), span 0", "outside the text of 95"]),
        ({"by": "given"}, {"text": HARP, "spans": [[0, 10**18]]}, 422, ["(id 'bad'), span 0", "outside the text"]),
        ({"by": "given"}, {"text": HARP, "spans": [[1, 2]]}, 422, ["(id 'bad'), span 0", "holds no token"]),
        ({"by": "given"}, {"text": HARP, "spans": [[0]]}, 422, ["documents[1].spans[0]", "at least 2"]),
        ({"by": "given"}, {"text": HARP, "spans": {"tokens": 4}}, 422, ["documents[1].spans", "list"]),
        ({"by": "given"}, {"text": "", "spans": [[0, 1]]}, 422, ["(id 'bad') is empty"]),
        (
            {"tokens": 8},
            {"text": HARP, "spans": [[0, 5]]},
            422,
            ["documents[1] (id 'bad') has 'spans'", "Leave them"],
        ),
        ({"tokens": 8}, {"text": ""}, 422, ["documents[1].text (id 'bad') is empty"]),
        ({"tokens": 8}, {"text": " \n"}, 422, ["(id 'bad') has nothing but white space"]),
        ({"tokens": 8}, {"text": "\u200b"}, 422, ["(id 'bad') has no token"]),
        ({"by": "sentence"}, {"text": "\u200b\u200b"}, 422, ["(id 'bad') has no token"]),
        ({"tokens": 8}, {"text": "a " * 70_000}, 413, ["documents[1].text (id 'bad') has 70002 tokens", "65536"]),
        ({"tokens": 300, "mode": "early"}, {"text": LONG}, 413, ["(id 'bad'), span 0 has 302 tokens", "256"]),
    ],
)
def test_a_document_that_cannot_be_cut_changes_nothing(
    http: httpx.Client, create: Create, chunking: dict[str, Any], bad: dict[str, Any], status: int, words: list[str]
) -> None:
    path = create(chunking)
    good = {"id": "good", "text": BREAD} | ({"spans": [[0, 5]]} if chunking.get("by") == "given" else {})
    store(http, path, [good])
    before = search(http, path, query="bread", k=1000)
    body = {"documents": [good | {"text": HARP}, {"id": "bad", **bad}]}
    answer = problem(http.post(f"{path}/documents", json=body), status, *words)
    assert answer["where"].startswith("documents[1]")
    assert search(http, path, query="bread", k=1000) == before


def test_given_spans_are_compared(http: httpx.Client, create: Create) -> None:
    path = create({"by": "given"})
    document = {"id": "harp", "text": HARP, "spans": [[0, 36], [37, 66]]}
    assert store(http, path, [document])["unchanged"] == 0
    assert store(http, path, [document])["unchanged"] == 1
    for spans in ([[37, 66], [0, 36]], [[0, 36]]):
        assert store(http, path, [document | {"spans": spans}])["unchanged"] == 0
        assert http.get(f"{path}/documents/harp").json()["spans"] == spans
    problem(http.post(f"{path}/documents", json={"documents": [{"id": "harp", "text": HARP}]}), 422, "no 'spans'")


def test_truncate_cuts_what_early_would_refuse_and_late_reads_in_windows(http: httpx.Client, create: Create) -> None:
    document = {"id": "a", "text": "word " * 600}
    late, early = create({"tokens": 300}), create({"tokens": 300, "mode": "early"})
    store(http, late, [document])
    store(http, early, [document], truncate=True)
    for path in (late, early):
        assert shown(search(http, path, query="word", k=9))[0][:2] in {("a", (0, 1499)), ("a", (1500, 2999))}
        assert http.get(path).json()["chunks"] == 2


def test_an_answer_does_not_repeat_a_long_text_without_end(http: httpx.Client, create: Create) -> None:
    path = create({"by": "given"})
    store(http, path, [{"id": "a", "text": "word" + " " * 900_000 + "harp", "spans": [[0, 4]] * 300}])
    for question in ({"query": "word"}, {"queries": ["word"]}, {"vector": [1.0] * 384}):
        answer = http.post(f"{path}/search", json=question | {"k": 300})
        problem(answer, 413, "270002400 characters", "268435456", "'text' out of 'include'", "group by document")
    assert len(search(http, path, query="word", k=300, include=["span"])) == 300
    assert len(search(http, path, query="word", k=300, group="document")) == 1


def test_group_is_a_word_that_is_known(http: httpx.Client, collection: str) -> None:
    problem(http.post(f"{collection}/search", json={"query": "a", "group": "documents"}), 422, "group", "'document'")
    problem(http.post(f"{collection}/search", json={"query": "a", "include": ["spans"]}), 422, "include", "'span'")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, {"tokens": 8, "overlap": 3}),
        ({"tokens": 8, "overlap": 3}, {"by": "sentence", "mode": "early"}),
        ({"by": "given"}, {"tokens": 8}),
        ({"by": "sentence"}, None),
    ],
)
def test_reindex_to_another_chunking(http: httpx.Client, create: Create, before: Any, after: Any) -> None:
    path, anew = create(before), create(after)
    store(http, path, documents_for(before or {})[:2])
    store(http, anew, documents_for(after or {})[:2])
    assert http.post(f"{path}/reindex").json()["state"] == "unneeded"
    told = http.get(path).json().get("chunking")
    assert http.post(f"{path}/reindex", json={"chunking": after}).status_code == 202
    now = ended(http, path)
    assert (now["state"], now["done"], now["total"]) == ("complete", 2, 2)
    assert (now["from"]["chunking"], now["to"]["chunking"]) == (told, http.get(anew).json().get("chunking"))
    left, right = (search(http, each, query="freshly baked", k=10_000) for each in (path, anew))
    assert [hit["id"] for hit in left] == [hit["id"] for hit in right]
    if after:
        assert same(shown(left), shown(right))
    for key in ("count", "chunks", "chunking"):
        assert http.get(path).json().get(key) == http.get(anew).json().get(key)
    # With another pooling it keeps the chunking that it has.
    assert http.post(f"{path}/reindex", json={"pooling": "cls"}).status_code == 202
    assert ended(http, path)["to"]["chunking"] == http.get(anew).json().get("chunking")


@pytest.mark.slow
def test_spans_that_were_stored_can_become_given_ones(http: httpx.Client, create: Create) -> None:
    path = create({"by": "sentence"})
    store(http, path, DOCUMENTS)
    before = search(http, path, query="music", k=10_000)
    http.post(f"{path}/reindex", json={"chunking": {"by": "given"}})
    assert ended(http, path)["state"] == "complete"
    assert same(shown(search(http, path, query="music", k=10_000)), shown(before))
    store(http, path, [GIVEN[0]])


def test_a_reindex_names_the_documents_that_cannot_be_cut(http: httpx.Client, create: Create) -> None:
    path = create(None)
    store(http, path, DOCUMENTS[:2])
    http.post(f"{path}/reindex", json={"chunking": {"by": "given"}})
    now = ended(http, path)
    assert now["state"] == "failed" and http.get(path).json().get("chunking") is None
    for words in ("2 documents cannot", "document 'harp' has no spans", "document 'bread' has no spans"):
        assert words in now["error"]
    store(http, path, [{"id": "long", "text": "word " * 600}], truncate=True)
    http.post(f"{path}/reindex", json={"chunking": {"tokens": 400, "mode": "early"}})
    now = ended(http, path)
    assert now["state"] == "failed" and (now["done"], now["total"]) == (2, 3)
    assert "document 'long', span 0 has 402 tokens and the model takes 256" in now["error"]
    http.post(f"{path}/reindex", json={"chunking": {"tokens": 400, "mode": "early"}, "truncate": True})
    assert ended(http, path)["state"] == "complete"
    assert http.get(path).json()["chunks"] == 4
    http.delete(f"{path}/reindex")


@pytest.mark.slow
def test_more_chunks_than_are_embedded_at_once(http: httpx.Client, create: Create) -> None:
    """As many are refused together; a reindex takes such documents one after the other."""
    path = create({"by": "given"})
    spans = [[0, 36]] * 33_000
    two = [{"id": name, "text": HARP, "spans": spans} for name in "ab"]
    answer = problem(http.post(f"{path}/documents", json={"documents": two}), 413, "66000 spans", "65536")
    assert answer["where"] == "spans"
    for document in two:
        store(http, path, [document])
    http.post(f"{path}/reindex", json={"pooling": "cls"})
    assert ended(http, path)["state"] == "complete"
    assert http.get(path).json()["chunks"] == 66_000
