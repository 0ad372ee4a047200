"""Fields that clients send beside what they ask: null, other servers' fields, unknown ones, and whose token ids."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.config import make_config
from service.deployment import open_deployment
from service.errors import ConfigError
from tests.support.deployed import TINY, Deployed, deployed
from tests.support.problems import openai_problem, problem
from tests.support.servers import Server

PROMPTS = {"query": "search for: ", "passage": "text: ", "clustering": "group: "}
TEXT = "A man is playing a harp."
LONG = "word " * 600


@pytest.fixture(scope="module")
def prompted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """A model with prompts that cuts long texts, and takes its own token ids and fields that there are not."""
    server = {"token_ids": "model", "unknown_fields": "ignore"}
    with deployed(tmp_path_factory.mktemp("store"), server=server, prompts=PROMPTS, truncate=True) as served:
        yield served


def vectors(served: Deployed, inputs: Any, **more: Any) -> np.ndarray:
    answer = served.post("/embed", {"inputs": inputs, **more})
    assert answer.status_code == 200, answer.text
    return np.array(answer.json())


# Null


@pytest.mark.parametrize("path", ["/embed", "/embed_all", "/embed_spans", "/explain", "/v1/embeddings", "/tokenize"])
def test_null_is_as_absent(http: httpx.Client, path: str) -> None:
    text = {"/explain": "text", "/v1/embeddings": "input"}.get(path, "inputs")
    needed = {text: TEXT} | ({"spans": [[0, 5]]} if path == "/embed_spans" else {})
    schema = http.get("/openapi.json").json()
    body = schema["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    properties = schema["components"]["schemas"][body.rsplit("/", 1)[1]]["properties"]
    assert len(properties) > 3
    nothing = dict.fromkeys(properties.keys() - needed, None)
    answers = [http.post(path, json=needed | more) for more in ({}, nothing)]
    assert [answer.status_code for answer in answers] == [200, 200], answers[1].text
    assert answers[0].json() == answers[1].json()


def test_null_of_a_required_field(http: httpx.Client) -> None:
    problem(http.post("/embed", json={"inputs": None}), 422, "inputs: this field is required")
    openai_problem(http.post("/v1/embeddings", json={"input": None}), 400, "input: this field is required")


def test_null_in_documents_and_where_it_has_a_meaning(http: httpx.Client, collection: str) -> None:
    document = {"id": "1", "text": TEXT, "metadata": None, "spans": None, "vector": None}
    body = {"documents": [document], "truncate": None, "on_error": None}
    assert http.post(f"{collection}/documents", json=body).json()["upserted"] == 1
    found = http.post(f"{collection}/search", json={"query": "harp", "k": None, "mode": None, "exact": None})
    assert [hit["id"] for hit in found.json()["hits"]] == ["1"]
    assert "keyword" in http.get(collection).json()
    wordless = f"{collection}-wordless"
    assert http.put(wordless, json={"keyword": None, "model": None}).status_code == 201
    assert "keyword" not in http.get(wordless).json()
    http.delete(wordless)


def test_the_model_that_is_not_named(http: httpx.Client) -> None:
    for body in ({"input": TEXT}, {"input": TEXT, "model": None}):
        answer = http.post("/v1/embeddings", json=body).json()
        assert answer["model"] == "mean" and len(answer["data"][0]["embedding"]) == 384


# Fields of other servers


@pytest.mark.parametrize(
    ("purpose", "prompt"),
    [
        *((name, "query") for name in ("query", "search_query", "retrieval.query", "RETRIEVAL_QUERY")),
        *((name, "passage") for name in ("document", "passage", "search_document", "retrieval.passage")),
        ("clustering", "clustering"),
        *((name, None) for name in ("classification", "text-matching", "SEMANTIC_SIMILARITY")),
    ],
)
def test_what_texts_are_for_chooses_the_prompt(prompted: Deployed, purpose: str, prompt: str | None) -> None:
    expected = vectors(prompted, TEXT, prompt_name=prompt)
    for field in ("input_type", "task"):
        np.testing.assert_array_equal(vectors(prompted, TEXT, **{field: purpose}), expected)
        answer = prompted.post("/v1/embeddings", {"input": TEXT, field: purpose}).json()
        np.testing.assert_allclose(answer["data"][0]["embedding"], expected[0], rtol=1e-6)
    assert (prompt is None) == np.array_equal(expected, vectors(prompted, TEXT))


def test_an_unknown_purpose(prompted: Deployed) -> None:
    for field in ("input_type", "task"):
        body = problem(prompted.post("/embed", {"inputs": TEXT, field: "qeury"}), 422, "Did you mean 'query'", field)
        assert body["where"] == field
    np.testing.assert_array_equal(
        vectors(prompted, TEXT, input_type="qeury", prompt_name="query"), vectors(prompted, TEXT, input_type="query")
    )


@pytest.mark.parametrize(
    "more",
    [
        {"user": "me"},
        {"options": {"wait_for_model": True}},
        {"add_special_tokens": True},
        {"encoding_format": "float"},
    ],
)
def test_fields_that_mean_nothing(http: httpx.Client, more: dict[str, Any]) -> None:
    assert (
        http.post("/embed", json={"inputs": TEXT, **more}).json() == http.post("/embed", json={"inputs": TEXT}).json()
    )


def test_fields_whose_meaning_is_not_served(http: httpx.Client) -> None:
    problem(
        http.post("/embed", json={"inputs": TEXT, "add_special_tokens": False}), 422, "add_special_tokens", "True"
    )
    refused = problem(
        http.post("/embed", json={"inputs": TEXT, "truncate_prompt_tokens": 255}), 422, "256", "not at 255"
    )
    assert refused["where"] == "truncate_prompt_tokens"
    cut = http.post("/embed", json={"inputs": LONG, "truncate": True}).json()
    for most in (-1, 256, 8192):
        assert http.post("/embed", json={"inputs": LONG, "truncate_prompt_tokens": most}).json() == cut


def test_unknown_fields_are_ignored_where_configured(prompted: Deployed, http: httpx.Client) -> None:
    body = {"inputs": TEXT, "normalise": True}
    problem(http.post("/embed", json=body), 422, "'normalise' is not a field here. Did you mean 'normalize'?")
    assert prompted.post("/embed", body).json() == prompted.post("/embed", {"inputs": TEXT}).json()
    nested = {"inputs": {"source_sentence": TEXT, "sentences": [TEXT], "more": 1}, "parameters": {"more": 2}}
    np.testing.assert_allclose(prompted.post("/similarity", nested).json(), [1], atol=1e-6)
    assert prompted.request("PUT", "/collections/c", json={"shards": 3}).status_code == 201  # by FastAPI's own router


@pytest.mark.parametrize("method,path", [("POST", "/embed"), ("POST", "/collections/large/documents")])
def test_a_large_body_is_refused_and_taken_as_a_small_one(
    prompted: Deployed, http: httpx.Client, method: str, path: str
) -> None:
    for served in (http, prompted):
        served.request("PUT", "/collections/large", json={})
    texts = {"inputs": [TEXT]} if path == "/embed" else {"documents": [{"id": "1", "text": TEXT}]}
    space = " " * 300_000

    def sent(served: httpx.Client | Deployed, body: dict[str, Any], before: str) -> tuple[int, Any]:
        content = before + json.dumps(body)
        answer = served.request(method, path, content=content, headers={"content-type": "application/json"})
        return answer.status_code, answer.json() | {"request_id": None} if answer.is_error else None

    for body in (
        texts,
        texts | {"truncate": 1},
        texts | {"truncat": True},
        {"truncate": True},
        texts | {"truncate": None},
    ):
        for served in (http, prompted):
            assert sent(served, body, space) == sent(served, body, ""), body
    assert [sent(served, texts | {"truncat": True}, space)[0] for served in (http, prompted)] == [422, 200]


# Texts that are too long


def test_a_model_that_cuts_long_texts_says_so(prompted: Deployed) -> None:
    answer = prompted.post("/embed", {"inputs": [TEXT, LONG, TEXT, LONG]})
    assert answer.headers["x-truncated"] == "2"
    assert "x-truncated" not in prompted.post("/embed", {"inputs": TEXT}).headers
    both = np.array(answer.json())
    np.testing.assert_allclose(both[1], vectors(prompted, LONG, truncate=True)[0], atol=1e-6)
    left = {"inputs": LONG, "truncation_direction": "left"}
    assert prompted.post("/embed", left).headers["x-truncated"] == "1"
    body = prompted.post("/v1/embeddings", {"input": [TEXT, LONG]})
    assert body.json()["truncated"] == [1] and body.headers["x-truncated"] == "1"
    states = prompted.post("/embed_all", {"inputs": [TEXT, LONG]}).json()
    assert [text.get("truncated") for text in states] == [None, True]
    spans = {"inputs": f"{TEXT} {LONG}", "spans": [[0, 24], [25, 3000]], "mode": "early"}
    assert prompted.post("/embed_spans", spans).json()[0]["truncated"] == [1]
    assert prompted.get("/info").json()["auto_truncate"] is True


def test_a_request_may_still_refuse_them(prompted: Deployed) -> None:
    for path, text in (("/embed", "inputs"), ("/embed_all", "inputs"), ("/explain", "text")):
        cut = prompted.post(path, {text: LONG})
        assert cut.status_code == 200 and (path != "/explain" or cut.json()["truncated"] == ["text"])
        problem(prompted.post(path, {text: LONG, "truncate": False}), 413, "2402 tokens", "truncate: true")
    openai_problem(prompted.post("/v1/embeddings", {"input": LONG, "truncate": False}), 413, "2402 tokens")


def test_documents_and_queries_are_cut_too(prompted: Deployed) -> None:
    assert prompted.request("PUT", "/collections/long").status_code == 201
    stored = prompted.post("/collections/long/documents", {"documents": [{"id": "1", "text": LONG}]})
    assert stored.json()["upserted"] == 1
    assert prompted.post("/collections/long/search", {"query": LONG}).json()["hits"][0]["id"] == "1"


# Token ids


def test_token_ids_are_refused_unless_the_deployment_says_whose_they_are(small: Server) -> None:
    for path, field in (("/embed", "inputs"), ("/embed_all", "inputs"), ("/", "inputs"), ("/v1/embeddings", "input")):
        for ids, place in (([9906, 1917], field), ([[9906, 1917]], f"{field}[0]"), (["a", [9906]], f"{field}[1]")):
            answer = small.http.post(path, json={field: ids})
            words = ["server.token_ids", "check_embedding_ctx_length=False", "cl100k_base"]
            if path == "/v1/embeddings":
                assert openai_problem(answer, 400, *words)["param"] == place
            else:
                body = problem(answer, 422, *words)
                assert (body["where"], body["error_type"]) == (place, "Tokenizer")


@pytest.mark.parametrize(("path", "other"), [("/tokenize", {}), ("/embed_spans", {"spans": {"by": "sentence"}})])
@pytest.mark.parametrize("ids", [[9906, 1917], [[9906, 1917]], ["a", [9906]]])
def test_token_ids_where_they_mean_nothing(small: Server, path: str, other: dict[str, Any], ids: list[Any]) -> None:
    body = problem(
        small.http.post(path, json={"inputs": ids} | other), 422, "a string or a list of strings", "/decode"
    )
    assert body["where"] == "inputs"
    body = problem(small.http.post(path, json={"inputs": ["a", 5]} | other), 422, "a valid string, not 5")
    assert body["where"] == "inputs[1]"


def test_states_of_token_ids(prompted: Deployed) -> None:
    """As those of their text without a prompt, beside a text with one."""
    told = {"truncate": False}
    (bare,) = prompted.post("/embed_all", {"inputs": TEXT} | told).json()
    (prompt,) = prompted.post("/embed_all", {"inputs": TEXT, "prompt_name": "query"} | told).json()
    ids = [token["id"] for token in prompted.post("/tokenize", {"inputs": TEXT}).json()[0]]
    mixed = prompted.post("/embed_all", {"inputs": [ids, TEXT, ids[1:-1]], "prompt_name": "query"} | told).json()
    for found, wanted in zip(mixed, (bare, prompt, bare), strict=True):
        assert found["tokens"] == wanted["tokens"]
        np.testing.assert_allclose(found["states"], wanted["states"], atol=1e-5)
    assert [text["offsets"] for text in mixed] == [[None] * len(ids), prompt["offsets"], [None] * len(ids)]
    long = prompted.post("/embed_all", {"inputs": ids[1:-1] * 100}).json()[0]
    assert long["truncated"] and len(long["tokens"]) == len(long["offsets"]) == len(long["states"])
    refused = prompted.post("/embed_all", {"inputs": [TEXT, ids[:2]], "prompt_name": "query"})
    assert problem(refused, 422)["where"] == "inputs[1]"


@pytest.mark.parametrize(
    "ids",
    [
        [32, 893, 374, 5737, 264, 4960, 79, 13],  # cl100k_base: A man is playing a harp.
        [9906, 1917, 11, 1268, 527, 499, 30],  # cl100k_base: Hello world, how are you?
        [101, 2158, 102, 2158, 102],  # a special token within
        [2158, 0],
        [101, 2158],
    ],
)
def test_ids_that_no_text_has_are_refused(http: httpx.Client, ids: list[int]) -> None:
    openai_problem(http.post("/v1/embeddings", json={"input": ids}), 400, "input", "decoded and encoded again")


def test_token_ids_beside_prompted_texts(prompted: Deployed) -> None:
    tokens = prompted.post("/tokenize", {"inputs": TEXT}).json()[0]
    ids = [token["id"] for token in tokens]
    bare, prompt = vectors(prompted, TEXT)[0], vectors(prompted, TEXT, prompt_name="query")[0]
    mixed = vectors(prompted, [ids, TEXT, ids[1:-1]], prompt_name="query")
    np.testing.assert_allclose(mixed, [bare, prompt, bare], atol=1e-6)
    long = ids[1:-1] * 100
    body = prompted.post("/v1/embeddings", {"input": [long, TEXT, LONG], "prompt_name": "query"}).json()
    assert body["truncated"] == [0, 2]
    refused = prompted.post("/embed", {"inputs": [TEXT, ids[:2]], "prompt_name": "query"})
    assert problem(refused, 422)["where"] == "inputs[1]"


def test_an_encoding_that_there_is_not(tmp_path: Path) -> None:
    values = {"models": {"tiny": {"encoder": str(TINY)}}, "store": {"path": str(tmp_path)}}
    config = make_config(values | {"server": {"token_ids": "cl100k_bse"}}, "a test", env={})
    with pytest.raises(ConfigError, match=r"server\.token_ids: 'cl100k_bse'"):
        open_deployment(config)


@pytest.fixture
def letters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An encoding that tiktoken finds in another package, since its own are downloaded."""
    tiktoken = pytest.importorskip("tiktoken")
    package = tmp_path / "tiktoken_ext"
    package.mkdir()
    (package / "letters.py").write_text(
        "def letters():\n"
        "    ranks = {bytes([byte]): 255 - byte for byte in range(256)}\n"
        "    return {'name': 'letters', 'pat_str': '.', 'mergeable_ranks': ranks, 'special_tokens': {'<end>': 300}}\n"
        "ENCODING_CONSTRUCTORS = {'letters': letters}\n"
    )
    import tiktoken_ext

    monkeypatch.setattr(tiktoken_ext, "__path__", [*tiktoken_ext.__path__, str(package)])
    monkeypatch.setattr(tiktoken.registry, "ENCODING_CONSTRUCTORS", None)
    tiktoken.registry._available_plugin_modules.cache_clear()
    yield
    tiktoken.registry._available_plugin_modules.cache_clear()


@pytest.mark.usefixtures("letters")
def test_the_ids_of_another_encoding(tmp_path: Path) -> None:
    with deployed(tmp_path / "store", server={"token_ids": "letters"}, prompts=PROMPTS) as served:
        text = "Ein naïver Text"
        ids = [255 - byte for byte in text.encode()]
        expected = vectors(served, [text], prompt_name="query")
        np.testing.assert_allclose(vectors(served, ids, prompt_name="query"), expected, atol=1e-6)
        for wrong in ([256], [-1], [2**40], [255 - 0xC3]):
            problem(served.post("/embed", {"inputs": ["a", wrong]}), 422, "inputs[1]", "no text in letters")


def test_a_vocabulary_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tiktoken")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    for proxy in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")
    with (
        pytest.raises(ConfigError, match="TIKTOKEN_CACHE_DIR"),
        deployed(tmp_path / "s", server={"token_ids": "p50k_base"}),
    ):
        pass
