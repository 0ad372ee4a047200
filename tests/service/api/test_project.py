"""`/project` against the principal components of what `/embed` gives."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest

from service.embedding.projection import project
from tests.support.problems import problem

TEXTS = [
    "The mill by the pond.",
    "A wheel turns.",
    "My invoice is wrong.",
    "ברוך הבא",
    "harp",
    "The mill by the pond.",
]


def projected(http: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = http.post("/project", json={"texts": TEXTS, "model": "mean", **body})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_places_are_those_of_the_vectors(http: httpx.Client) -> None:
    found = projected(http, pooling=["mean", "cls", "max"])
    assert found["model"] == "mean"
    for place, view in enumerate(found["views"]):
        spec = ["mean", "cls", "max"][place]
        vectors = http.post("/embed", json={"inputs": TEXTS, "pooling": spec, "model": "mean"}).json()
        plane = project(np.array(vectors, np.float32))
        assert view["pooling"] == spec
        assert view["explained"] == pytest.approx(plane.explained, abs=1e-4)
        # Turned and mirrored, they keep their distances.
        of = [
            np.linalg.norm(points[:, None] - points[None], axis=2)
            for points in (np.array(view["points"]), plane.points)
        ]
        np.testing.assert_allclose(*of, atol=1e-3)
        assert view["points"][0] == pytest.approx(view["points"][5], abs=1e-5)  # equal texts


def test_each_view_is_turned_to_the_first(http: httpx.Client) -> None:
    first, other = (np.array(view["points"]) for view in projected(http, pooling=["mean", "max"])["views"])
    for mirror in ([1, 1], [1, -1], [-1, 1], [-1, -1]):
        assert np.linalg.norm(other - first) <= np.linalg.norm(other * mirror - first) + 1e-6
    again = projected(http, pooling=["mean", "max"])["views"]
    np.testing.assert_allclose(again[1]["points"], other, atol=1e-6)


def test_equal_texts_are_embedded_once_whatever_stands_beside_them(http: httpx.Client) -> None:
    texts = ["harp", *(f"{'long ' * (place % 25)} text {place}" for place in range(60)), "harp"] * 2
    for view in projected(http, texts=texts, pooling=["mean", "max"])["views"]:
        assert view["points"][: len(texts) // 2] == view["points"][len(texts) // 2 :]
        assert view["points"][0] == view["points"][len(texts) // 2 - 1]
    problem(http.post("/project", json={"texts": ["harp", "harp", ""], "model": "mean"}), 422, "texts[2]")


def test_equal_texts_have_one_place(http: httpx.Client) -> None:
    (view,) = projected(http, texts=["harp"] * 3)["views"]
    assert view == {"pooling": "mean", "explained": [0.0, 0.0], "points": [[0.0, 0.0]] * 3}


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"texts": ["harp"]}, 422, "1 texts are sent; one request projects from 2 to 2000"),
        ({"texts": ["harp"] * 2001}, 422, "2001 texts"),
        ({"texts": ["harp", ""]}, 422, "texts[1]"),
        ({"pooling": ["mean"] * 9}, 422, "from 1 to 8"),
        ({"pooling": "maen"}, 422, "mean"),
        ({"texts": ["harp"] * 2000, "pooling": "piecewise(n=64)"}, 413, "project"),
        ({"model": "nope"}, 404, "nope"),
    ],
)
def test_what_is_refused(http: httpx.Client, body: dict[str, Any], status: int, words: str) -> None:
    problem(http.post("/project", json={"texts": TEXTS, "model": "mean", **body}), status, words)


def test_a_collection_by_its_stored_vectors(http: httpx.Client) -> None:
    http.put("/collections/places", json={"model": "mean"}).raise_for_status()
    documents = [{"id": str(place), "text": text, "metadata": {"odd": place % 2}} for place, text in enumerate(TEXTS)]
    http.post("/collections/places/documents", json={"documents": documents}).raise_for_status()
    try:
        found = http.post("/collections/places/project", json={}).json()
        (view,) = projected(http)["views"]
        assert found["total"] == 6 and found["ids"] == ["0", "1", "2", "3", "4", "5"] and "spans" not in found
        np.testing.assert_allclose(found["points"], view["points"], atol=1e-4)
        some = http.post("/collections/places/project", json={"limit": 2, "filter": {"odd": 1}}).json()
        assert (some["total"], some["ids"]) == (3, ["1", "3"])
        problem(http.post("/collections/places/project", json={"limit": 0}), 422, "limit")
        problem(http.post("/collections/nowhere/project", json={}), 404, "nowhere")
    finally:
        http.delete("/collections/places")


def test_spans_of_a_chunked_collection_and_an_empty_one(http: httpx.Client) -> None:
    chunking = {"by": "sentence", "mode": "early"}
    http.put("/collections/spans", json={"model": "mean", "chunking": chunking}).raise_for_status()
    try:
        empty = http.post("/collections/spans/project", json={}).json()
        assert empty == {"total": 0, "ids": [], "explained": [0.0, 0.0], "points": []}
        document = {"id": "a", "text": "A wheel turns. The mill grinds. It rains."}
        http.post("/collections/spans/documents", json={"documents": [document]}).raise_for_status()
        found = http.post("/collections/spans/project", json={}).json()
        assert found["ids"] == ["a"] * 3 and found["total"] == 1
        assert [document["text"][start:end].strip() for start, end in found["spans"]] == [
            "A wheel turns.",
            "The mill grinds.",
            "It rains.",
        ]
    finally:
        http.delete("/collections/spans")
