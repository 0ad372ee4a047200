"""Property: whatever JSON is thrown at a route, it never fails with a 500 and errors have the right shape."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.problems import well_formed

FIELDS = ["inputs", "input", "model", "pooling", "normalize", "truncate", "truncation_direction", "prompt_name"]
FIELDS += ["dimensions", "encoding_format", "user", "documents", "id", "text", "metadata", "query", "queries"]
FIELDS += ["vector", "k", "filter", "include", "index", "other", "matrix", "spans", "mode", "tokens", "overlap", "by"]
FIELDS += ["chunking", "group", "weights", "diversity", "score_threshold", "positive", "negative", "dense", "keyword"]
FIELDS += ["ids", "all", "limit", "cursor", "merge", "replace", "to", "collection"]
FIELDS += ["recall", "exact", "input_type", "task", "truncate_prompt_tokens", "output_dtype", "parameters"]
FIELDS += ["source_sentence", "sentences", "add_special_tokens", "skip_special_tokens", "options"]
WORDS = ["mean", "cls", "gem(p=2)", "mean + max", "attention", "left", "flat", "base64", "text", "metadata", ""]
WORDS += ["late", "early", "sentence", "given", "document", "span", "dense", "keyword", "hybrid", "vector"]
WORDS += ["declared", "$and", "$not", "$gte", "$in", "strategy", "concat", "window(size=2, stride=1) > mean", "."]
NUMBERS = [0, 1, -1, 3, 384, 2**31, 2**63, -(2**63), 2**64, 10**30, 0.5, 1e300, 5e-324, -0.0]

scalars = (
    st.none()
    | st.booleans()
    | st.sampled_from(NUMBERS)
    | st.sampled_from(WORDS)
    | st.text(max_size=8).filter(
        lambda text: text.isascii() or not any(0xD800 <= ord(character) < 0xE000 for character in text)
    )
)
finite = st.floats(allow_nan=False, allow_infinity=False)  # JSON has no others
keys = st.sampled_from(FIELDS + WORDS) | st.text("ab.$", max_size=3)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=8,
)
documents = st.lists(
    st.fixed_dictionaries({"id": st.text(max_size=3) | values, "text": st.text(max_size=9) | values})
    | st.dictionaries(st.sampled_from(["id", "text", "metadata", "spans"]), values, max_size=3),
    max_size=3,
)
filters = st.dictionaries(
    st.sampled_from(["a", "a.b", "$and", "$or", "$not", "$x"]),
    values | st.dictionaries(st.sampled_from(["$eq", "$gt", "$in", "$nin", "$exists", "$not", "$x"]), values),
    max_size=3,
)
cuts = st.dictionaries(st.sampled_from(["tokens", "overlap", "by"]), st.integers(0, 9) | values, max_size=3)
changes = st.dictionaries(
    st.sampled_from(["noise", "filler", "swaps", "replaced", "keep", "padding"]),
    st.integers(-1, 3) | values,
    max_size=3,
)
spans = st.lists(st.lists(st.integers(-1, 9), min_size=2, max_size=2) | values, max_size=3)
likely: dict[str, dict[str, Any]] = {
    "/embed": {"inputs": st.text(max_size=9) | st.lists(st.text(max_size=9), max_size=3) | values},
    "/embed_all": {"inputs": st.text(max_size=9) | st.lists(st.text(max_size=9), max_size=3) | values},
    "/embed_spans": {
        "inputs": st.text(max_size=9) | st.lists(st.text(max_size=9), max_size=3) | values,
        "spans": spans | st.lists(spans, max_size=3) | cuts | values,
    },
    "/explain": {"text": st.text(max_size=9) | values, "other": st.none() | st.text(max_size=9) | values},
    "/project": {"texts": st.lists(st.text(max_size=9), max_size=4) | values},
    "/compare": {"texts": st.lists(st.text(max_size=9), max_size=3) | values, "numbers": st.integers(-1, 9) | values},
    "/perturb": {
        "text": st.text(max_size=9) | values,
        "changes": st.lists(changes | values, max_size=3) | values,
        "pooling": st.sampled_from(["mean", "gem", ["max", "cls"]]) | values,
    },
    "/pool": {
        "states": st.lists(st.lists(finite | st.integers(), max_size=3), max_size=3) | values,
        "counts": st.lists(st.booleans(), max_size=3) | values,
        "query": st.lists(finite, max_size=3) | values,
        "pooling": st.sampled_from(["mean", "attention", "gem", ["max", "cls"]]) | values,
    },
    "/evaluate": {
        "pairs": st.lists(
            st.dictionaries(st.sampled_from(["sentence1", "sentence2", "score", "anchor"]), values), max_size=3
        )
        | values,
        "classification": st.lists(st.dictionaries(st.sampled_from(["text", "label"]), values), max_size=3) | values,
        "data": st.none() | values,
    },
    "/v1/embeddings": {
        "input": st.text(max_size=9) | st.lists(st.integers(-1, 30_600), max_size=5) | values,
        "model": st.sampled_from(["mean", "cls", "nope"]) | values,
    },
    "/": {"inputs": st.dictionaries(st.sampled_from(["source_sentence", "sentences"]), values) | values},
    "/similarity": {
        "inputs": st.fixed_dictionaries(
            {"source_sentence": st.text(max_size=9), "sentences": st.lists(st.text(max_size=9), max_size=3) | values}
        )
        | values,
        "parameters": st.dictionaries(keys, values, max_size=2),
    },
    "/tokenize": {"inputs": st.text(max_size=9) | st.lists(st.text(max_size=9), max_size=3) | values},
    "/decode": {"ids": st.lists(st.integers(-1, 30_600), max_size=5) | values},
    "/documents": {"documents": documents | values},
    "/search": {
        "query": st.text(max_size=9) | values,
        "vector": st.none() | st.lists(finite, max_size=3) | values,
        "filter": filters | values,
        "mode": st.sampled_from(["dense", "keyword", "hybrid"]) | values,
    },
    "/recommend": {
        "positive": st.lists(st.text(max_size=3), max_size=3) | values,
        "negative": st.lists(st.text(max_size=3), max_size=3) | values,
    },
    "/documents/list": {"limit": st.integers(-1, 9) | values, "cursor": st.text(max_size=30), "filter": filters},
    "/documents/count": {"filter": filters | values},
    "/documents/get": {"ids": st.lists(st.text(max_size=3), max_size=3) | values},
    "/documents/delete": {"ids": st.lists(st.text(max_size=3), max_size=3) | values, "filter": filters | values},
    "/documents/metadata": {"filter": filters | values, "merge": st.dictionaries(keys, values) | values},
    "/copy": {"to": st.text(max_size=3) | values},
    "/aliases/some": {"collection": values},
}
OF_A_COLLECTION = {"/documents", "/search", "/recommend", "/copy"} | {
    each for each in likely if "/documents/" in each
}
OPTIONAL = {"/search", "/documents/list", "/documents/delete", "/documents/metadata"}


@pytest.mark.slow
@pytest.mark.parametrize("route", likely)
@settings(database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_body_is_a_bug(http: httpx.Client, collection: str, route: str, data: st.DataObject) -> None:
    path = f"{collection}{route}" if route in OF_A_COLLECTION else route
    required = (
        st.fixed_dictionaries({}, optional=likely[route])
        if route in OPTIONAL
        else st.fixed_dictionaries(likely[route])
    )
    options = st.dictionaries(st.sampled_from(FIELDS), values, max_size=2)
    body = data.draw(st.builds(lambda more, main: more | main, options, required) | values, label="body")
    answer = http.request("PUT" if route.startswith("/aliases") else "POST", path, json=body)
    assert answer.status_code < 500
    if answer.status_code >= 400:
        well_formed(answer)
    else:
        assert answer.headers["content-type"] == "application/json"
        told = answer.json()
        if route == "/copy":
            http.delete(f"/collections/{told['name']}")


@settings(database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=40) | st.text('{}[]":,aeinput0189.\\u', max_size=30).map(str.encode))
def test_no_bytes_are_a_bug(http: httpx.Client, body: bytes) -> None:
    answer = http.post("/embed", content=body, headers={"content-type": "application/json"})
    assert 400 <= answer.status_code < 500
    well_formed(answer)
