"""`layers` beside `pooling`: in requests, in what is told, and in what a collection is made under."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.checkpoints import close
from tests.support.deployed import deployed
from tests.support.problems import problem

TEXTS = ["A mill by the pond.", "the wheel turns"]
FIRST_LAST = {"use": ["first", "last"], "by": "mean"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    with deployed(tmp_path_factory.mktemp("layers") / "store") as served:
        yield served


@pytest.fixture(scope="module")
def configured(tmp_path_factory):
    with deployed(tmp_path_factory.mktemp("layers") / "store", layers=FIRST_LAST) as served:
        yield served


def test_every_route_that_pools_takes_layers(tiny, configured):
    wanted = configured.post("/embed", {"inputs": TEXTS}).json()
    assert not close(np.array(tiny.post("/embed", {"inputs": TEXTS}).json()), np.array(wanted), 1e-2)
    asked = {"layers": FIRST_LAST}
    assert close(np.array(tiny.post("/embed", {"inputs": TEXTS} | asked).json()), np.array(wanted))
    openai = tiny.post("/v1/embeddings", {"input": TEXTS, "model": "tiny"} | asked).json()
    assert close(np.array([each["embedding"] for each in openai["data"]]), np.array(wanted))
    for path, body in (
        ("/embed_all", {"inputs": TEXTS}),
        ("/embed_spans", {"inputs": TEXTS, "spans": {"tokens": 3}}),
        ("/similarity", {"inputs": {"source_sentence": TEXTS[0], "sentences": TEXTS}}),
        ("/", {"inputs": TEXTS}),
        ("/explain", {"text": TEXTS[0], "other": TEXTS[1]}),
    ):
        there, here = (served.post(path, body | more) for served, more in ((configured, {}), (tiny, asked)))
        assert there.status_code == here.status_code == 200, (path, here.text)
        assert there.json() == here.json(), path
        assert tiny.post(path, body).json() != here.json(), path
        assert tiny.post(path, body | {"layers": "last"}).json() == tiny.post(path, body).json()


def test_an_explanation_names_its_layers(tiny):
    asked = {"text": TEXTS[0], "other": TEXTS[1], "pooling": ["mean", "cls"]}
    assert "layers" not in tiny.post("/explain", asked).json()
    found = tiny.post("/explain", asked | {"layers": {"last": 2}}).json()
    assert found["layers"]["by"] == "mean" and len(found["layers"]["use"]) == 2
    for each in found["explanations"]:
        assert sum(token["share"] for token in each["tokens"]) == pytest.approx(1)
        assert sum(token["contribution"] for token in each["tokens"]) == pytest.approx(each["similarity"], abs=1e-5)


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ("first", "'first' names no layers; give last"),
        ({"use": [99]}, "there is no layer 99"),
        ({"use": [-1]}, "there is no layer -1"),
        ({"use": [True]}, "True is no layer"),
        ({"use": [1.5]}, "1.5 is no layer"),
        ({"use": []}, "lists no layers"),
        ({"use": [0, 0]}, "layer 0 is listed twice"),
        ({"use": [0], "by": "max"}, "by: 'max' is not known"),
        ({"last": 0}, "last: 0 is not how many"),
        ({"deep": 1}, "names no layers"),
        ({"use": [0, 1], "weights": [0.5, 0.5]}, "give declared"),
        ({"use": [{"a": [None]}]}, "is no layer"),
    ],
)
def test_what_is_no_layer_is_refused_by_its_field(tiny, layers, words):
    bodies = {"/embed": {"inputs": TEXTS}, "/explain": {"text": TEXTS[0]}, "/embed_all": {"inputs": "a"}}
    for path, body in bodies.items():
        assert problem(tiny.post(path, body | {"layers": layers}), 422, words)["place"] == {"field": "layers"}


@pytest.mark.parametrize("layers", [3, [1, 2], True])
def test_what_has_no_form_of_layers(tiny, layers):
    assert "{last: 4, by: mean}" in problem(tiny.post("/embed", {"inputs": TEXTS, "layers": layers}), 422)["detail"]


def test_a_collection_is_searched_under_its_own_layers_alone(tmp_path):
    documents = {"documents": [{"id": str(number), "text": text} for number, text in enumerate(TEXTS)]}
    with deployed(tmp_path) as served:
        assert served.request("PUT", "/collections/plain", json={}).status_code == 201
        made = served.request("PUT", "/collections/mixed", json={"layers": FIRST_LAST})
        assert made.status_code == 201 and made.json()["layers"]["by"] == "mean"
        again = served.request("PUT", "/collections/mixed", json={"layers": made.json()["layers"]})
        assert again.status_code == 200, "the same layers, spelled by number"
        problem(served.request("PUT", "/collections/mixed", json={}), 409)
        for name in ("plain", "mixed"):
            assert served.post(f"/collections/{name}/documents", documents).status_code == 200
            hits = served.post(f"/collections/{name}/search", {"query": TEXTS[1]}).json()["hits"]
            assert [hit["id"] for hit in hits] == ["1", "0"]
        problem(
            served.request("PUT", "/collections/foreign", json={"dimension": 3, "layers": "last"}),
            422,
            "'layers' is a model's",
        )
    with deployed(tmp_path, layers=FIRST_LAST) as served:
        refusal = problem(served.post("/collections/plain/search", {"query": "wheel"}), 409, "layers: None, now")
        assert refusal["differences"]["layers"]["stored"] is None
        assert served.post("/collections/mixed/search", {"query": TEXTS[1]}).json()["hits"][0]["id"] == "1"
    with deployed(tmp_path) as served:
        begun = served.post("/collections/mixed/reindex", {"layers": "last"})
        assert begun.status_code == 202
        assert begun.json()["from"]["layers"] == made.json()["layers"] and begun.json()["to"]["layers"] is None


def test_a_collection_of_a_model_with_layers_is_refused_without_them(tmp_path):
    with deployed(tmp_path, layers=FIRST_LAST) as served:
        served.request("PUT", "/collections/mixed", json={})
        info = served.get("/info").json()["models"]["tiny"]
        assert info["layers"]["by"] == "mean"
    with deployed(tmp_path) as served:
        refusal = problem(served.post("/collections/mixed/search", {"query": "wheel"}), 409, "now None")
        assert refusal["differences"]["layers"]["served"] is None
        assert served.get("/info").json()["models"]["tiny"]["layers"] == "last"


@pytest.mark.parametrize(
    ("first", "again"),
    [
        ({"pooling": "cls", "layers": FIRST_LAST}, {"pooling": "cls"}),
        ({"layers": "last"}, {"layers": "last", "pooling": "mean"}),
        ({"layers": "declared"}, {"layers": "last"}),
    ],
)
def test_a_collection_is_the_same_however_its_vectors_are_spelled(tmp_path, first, again):
    with deployed(tmp_path, layers=FIRST_LAST, pooling="mean") as served:
        assert served.request("PUT", "/collections/one", json=first).status_code == 201
        assert served.request("PUT", "/collections/one", json=again).status_code == 200
        assert served.request("PUT", "/collections/other", json=again).status_code == 201
        assert served.request("PUT", "/collections/other", json=first).status_code == 200


def test_chunks_that_hold_no_special_token_are_refused_with_their_collection(tiny):
    asked = {"pooling": "token('[CLS]')", "chunking": {"tokens": 5}}
    problem(tiny.request("PUT", "/collections/late", json=asked), 422, "special tokens are in no span")
    early = {**asked, "chunking": {"tokens": 5, "mode": "early"}}
    assert tiny.request("PUT", "/collections/early", json=early).status_code == 201
