"""`/embed_spans`: late against pooling the states of `/embed_all` by hand, early against `/embed`."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest

from tests.support.problems import problem

TOLERANCE = 1e-5
TEXT = "A man is playing a harp by the pond. It rains, and nobody listens! Then the naïve 日本 cat comes."
SPANS = [[0, 36], [37, 66], [67, 95], [2, 5], [0, 95], [37, 66], [30, 50], [4, 8], [82, 83], [1, 5]]
FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
LONG = [f"{one} {other}" for one in ("harp", "rain", "cat", "stone") for other in ("river", "bread", "wind", "night")]


def spanned(http: httpx.Client, inputs: Any, spans: Any, **more: Any) -> Any:
    """Spans and vectors of one text, or of several."""
    answer = http.post("/embed_spans", json={"inputs": inputs, "spans": spans, **more})
    assert answer.status_code == 200, answer.text[:500]
    found = [(text["spans"], np.array(text["vectors"])) for text in answer.json()]
    return found[0] if isinstance(inputs, str) else found


def states_of(http: httpx.Client, text: str) -> tuple[list[Any], np.ndarray]:
    """Offsets and states (tokens, dim) of a text."""
    (found,) = http.post("/embed_all", json={"inputs": text}).json()
    return found["offsets"], np.array(found["states"])


def pooled(states: np.ndarray, pooling: str) -> np.ndarray:
    """Token states (tokens, dim) -> the unit vector of a pooling."""
    vector = {
        "mean": states.mean(0),
        "cls": states[0],
        "last": states[-1],
        "max": states.max(0),
        "mean + max": np.concatenate([states.mean(0), states.max(0)]),
    }[pooling]
    return vector / np.linalg.norm(vector)


def by_hand(offsets: list[Any], states: np.ndarray, spans: list[list[int]], pooling: str) -> np.ndarray:
    """A vector for each span, from the states of the tokens that overlap it."""
    rows = [
        [place for place, at in enumerate(offsets) if at is not None and at[0] < end and at[1] > start]
        for start, end in spans
    ]
    return np.stack([pooled(states[row], pooling) for row in rows])


@pytest.mark.parametrize("pooling", ["mean", "cls", "last", "max", "mean + max"])
def test_late_is_pooling_the_states_of_the_whole_text(http: httpx.Client, pooling: str) -> None:
    spans, vectors = spanned(http, TEXT, SPANS, pooling=pooling)
    assert spans == SPANS
    np.testing.assert_allclose(vectors, by_hand(*states_of(http, TEXT), SPANS, pooling), atol=TOLERANCE)
    if "+" not in pooling:
        np.testing.assert_allclose(spanned(http, TEXT, SPANS, model=pooling)[1], vectors, atol=TOLERANCE)


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_early_is_embedding_the_characters(http: httpx.Client, pooling: str) -> None:
    spans, vectors = spanned(http, TEXT, SPANS, pooling=pooling, mode="early")
    assert spans == SPANS
    alone = http.post("/embed", json={"inputs": [TEXT[start:end] for start, end in SPANS], "pooling": pooling}).json()
    np.testing.assert_allclose(vectors, alone, atol=TOLERANCE)
    # The context is what makes the difference.
    late = spanned(http, TEXT, SPANS, pooling=pooling)[1]
    assert np.abs(late - vectors).max() > 0.01


@pytest.mark.parametrize("words", [254, 255, 700])
def test_a_long_text_is_read_in_windows(http: httpx.Client, words: int) -> None:
    """Each word is one token, so that a window is a piece of the text."""
    chosen = (" ".join(LONG).split() * 32)[:words]
    text = " ".join(chosen)
    starts = np.cumsum([0, *(len(word) + 1 for word in chosen)])
    room, shared = 254, 64
    steps = max(0, -(-(words - room) // (room - shared)))
    windows = [step * (words - room) // steps for step in range(steps + 1)] if steps else [0]
    states = []
    for window in windows:
        part = text[starts[window] : starts[min(window + room, words)] - 1]
        found = states_of(http, part)[1]
        assert len(found) == min(room, words) + 2  # the special tokens
        states.append(found[1:-1])

    def context(word: int, window: int) -> int:
        return min(word - window, window + room - 1 - word)

    best = [
        max(range(len(windows)), key=lambda place: (context(word, windows[place]), -place)) for word in range(words)
    ]
    whole = np.stack([states[place][word - windows[place]] for word, place in enumerate(best)])
    runs = [(0, 3), (100, 140), (180, 230), (words - 9, words), (0, words), (words // 2, words // 2 + 1)]
    spans = [[int(starts[first]), int(starts[last]) - 1] for first, last in runs]
    for pooling in ("mean", "cls", "max"):
        expected = np.stack([pooled(whole[first:last], pooling) for first, last in runs])
        np.testing.assert_allclose(spanned(http, text, spans, pooling=pooling)[1], expected, atol=TOLERANCE)


def test_early_refuses_or_cuts_a_span_that_is_too_long(http: httpx.Client) -> None:
    text = "word " * 300
    body = {"inputs": text, "spans": [[0, 10], [0, 1499]], "mode": "early"}
    refusal = problem(http.post("/embed_spans", json=body), 413, "spans[1] has 302 tokens", "256")
    assert refusal["where"] == "spans[1]"
    for direction in ("right", "left"):
        options = {"truncate": True, "truncation_direction": direction}
        vectors = spanned(http, text, [[0, 1499]], mode="early", **options)[1]
        np.testing.assert_allclose(
            vectors, http.post("/embed", json={"inputs": text, **options}).json(), atol=TOLERANCE
        )


def test_by_tokens(http: httpx.Client) -> None:
    offsets, states = states_of(http, TEXT)
    real = [at for at in offsets if at]
    spans, vectors = spanned(http, TEXT, {"tokens": 8, "overlap": 3})
    firsts = [first for first in range(0, len(real), 5) if first == 0 or first + 3 < len(real)]
    assert spans == [[real[first][0], real[min(first + 8, len(real)) - 1][1]] for first in firsts]
    np.testing.assert_allclose(vectors, by_hand(offsets, states, spans, "mean"), atol=TOLERANCE)
    assert (
        spanned(http, TEXT, {"by": "tokens", "tokens": 8})[0] == spanned(http, TEXT, {"tokens": 8, "overlap": 0})[0]
    )
    assert spanned(http, TEXT, {"tokens": 65_536})[0] == [[0, len(TEXT)]]


def test_by_sentence(http: httpx.Client) -> None:
    spans, vectors = spanned(http, TEXT, {"by": "sentence"})
    assert [TEXT[start:end] for start, end in spans] == [
        "A man is playing a harp by the pond.",
        "It rains, and nobody listens!",
        "Then the naïve 日本 cat comes.",
    ]
    np.testing.assert_allclose(vectors, by_hand(*states_of(http, TEXT), spans, "mean"), atol=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["late", "early"])
def test_several_texts_are_as_each_alone(http: httpx.Client, mode: str) -> None:
    texts = [TEXT, "word " * 400, "One. Two."]
    given = [SPANS, [[0, 50], [1000, 1999]], [[5, 9]]]
    for spans in (given, {"tokens": 20, "overlap": 5}, {"by": "sentence"}):
        options = {"mode": mode, "truncate": True}
        together = spanned(http, texts, spans, **options)
        for place, (found, vectors) in enumerate(together):
            alone = spanned(http, texts[place], spans[place] if spans is given else spans, **options)
            assert found == alone[0]
            np.testing.assert_allclose(vectors, alone[1], atol=TOLERANCE)
    assert spanned(http, [TEXT], [[[0, 36]]])[0][0] == [[0, 36]]


def test_a_span_may_split_a_token_or_a_character(http: httpx.Client) -> None:
    """All of a token that it touches counts; under `early` the characters themselves are embedded."""
    text = f"Harpsichords by {FAMILY} and e\u0301tudes."
    offsets, states = states_of(http, text)
    inside = text.index(FAMILY) + 2
    spans = [[3, 6], [inside, inside + 1], [text.index("\u0301"), text.index("tudes") + 2], [0, len(text)]]
    touching = [span for span in spans if any(at and at[0] < span[1] and at[1] > span[0] for at in offsets)]
    assert len(touching) >= 3
    np.testing.assert_allclose(
        spanned(http, text, touching)[1], by_hand(offsets, states, touching, "mean"), atol=TOLERANCE
    )
    np.testing.assert_allclose(
        spanned(http, text, [[3, 6]], mode="early")[1],
        http.post("/embed", json={"inputs": text[3:6]}).json(),
        atol=TOLERANCE,
    )


def test_normalize_and_dimensions(http: httpx.Client) -> None:
    vectors = spanned(http, TEXT, SPANS)[1]
    raw = spanned(http, TEXT, SPANS, normalize=False)[1]
    np.testing.assert_allclose(raw / np.linalg.norm(raw, axis=1, keepdims=True), vectors, atol=TOLERANCE)
    few = spanned(http, TEXT, SPANS, dimensions=16)[1]
    assert few.shape == (len(SPANS), 16)
    np.testing.assert_allclose(few, raw[:, :16] / np.linalg.norm(raw[:, :16], axis=1, keepdims=True), atol=TOLERANCE)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"spans": [[5, 5]]}, 422, ["spans[0] is [5, 5], which is empty", "code points"]),
        ({"spans": [[0, 3], [9, 6]]}, 422, ["spans[1] is [9, 6], which is reversed"]),
        ({"spans": [[0, 96]]}, 422, ["spans[0] is [0, 96], outside the text of 95 characters"]),
        ({"spans": [[-1, 5]]}, 422, ["spans[0]", "outside the text"]),
        ({"spans": [[0, 10**15]]}, 422, ["spans[0]", "outside the text"]),
        ({"spans": [[1, 2]]}, 422, ["spans[0] is [1, 2], ' ', which holds no token", "widen"]),
        ({"spans": []}, 422, ["inputs has no span"]),
        ({"spans": [[0, 5, 6]]}, 422, ["spans[0]", "at most 2"]),
        ({"spans": [[0]]}, 422, ["spans[0]", "at least 2"]),
        ({"spans": [[0, 5.5]]}, 422, ["spans[0][1]", "integer"]),
        ({"spans": [[0, True]]}, 422, ["spans[0][1]", "integer"]),
        ({"spans": [5]}, 422, ["spans[0]", "list"]),
        ({"spans": "sentence"}, 422, ["spans", "[[start, end], ...]", '{"by": "sentence"}']),
        ({"spans": None}, 422, ["spans: this field is required"]),
        ({}, 422, ["spans: this field is required"]),
        ({"spans": [[[0, 5]]]}, 422, ["one text needs its spans as one list"]),
        ({"inputs": [TEXT], "spans": [[0, 5]]}, 422, ["several texts need", "list of lists"]),
        ({"inputs": [TEXT, "a"], "spans": [[[0, 5]]]}, 422, ["1 lists for 2 texts"]),
        ({"inputs": [TEXT, "a"], "spans": [[[0, 5]], [[0, 2]]]}, 422, ["spans[1][0] is [0, 2]", "1 characters"]),
        ({"inputs": [TEXT, "a"], "spans": [[[0, 5]], []]}, 422, ["inputs[1] has no span"]),
        ({"spans": {"tokens": 0}}, 422, ["spans.tokens", "greater than or equal to 1"]),
        ({"spans": {"tokens": 65_537}}, 422, ["spans.tokens", "65536"]),
        ({"spans": {"tokens": 5, "overlap": 5}}, 422, ["'overlap' must be less than 'tokens'", "5"]),
        ({"spans": {"tokens": 5, "overlap": -1}}, 422, ["spans.overlap"]),
        ({"spans": {"overlap": 5}}, 422, ["'tokens' must say how many", "sentence"]),
        ({"spans": {}}, 422, ["'tokens' must say how many"]),
        ({"spans": {"by": "sentence", "tokens": 5}}, 422, ["neither 'tokens' nor 'overlap'"]),
        ({"spans": {"by": "word"}}, 422, ["spans.by", "'tokens' or 'sentence'"]),
        ({"spans": {"token": 5}}, 422, ["spans.token", "Did you mean 'tokens'?"]),
        ({"spans": [[0, 5]], "mode": "later"}, 422, ["mode", "'late' or 'early'"]),
        ({"spans": [[0, 5]], "pooling": "meen"}, 422, ["meen", "mean"]),
        ({"spans": [[0, 5]], "dimensions": 385}, 422, ["dimensions", "384"]),
        ({"spans": [[0, 5]], "model": "nope"}, 404, ["no model is named 'nope'"]),
        ({"spans": [[0, 5]], "prompt_name": "query"}, 422, ["no prompt 'query'"]),
        ({"inputs": "", "spans": [[0, 0]]}, 422, ["inputs is empty"]),
        ({"inputs": " \n", "spans": [[0, 1]]}, 422, ["white space"]),
        ({"inputs": "\u200b", "spans": [[0, 1]]}, 422, ["inputs has no token"]),
        ({"inputs": [], "spans": [[0, 1]]}, 422, ["inputs is empty"]),
        ({"inputs": TEXT, "spans": [[0, 36]] * 16_385}, 413, ["16385 spans", "16384"]),
        ({"inputs": "word " * 5000, "spans": [[0, 25_000]] * 700}, 413, ["characters", "overlap less"]),
        ({"inputs": "a " * 70_000, "spans": {"tokens": 64}}, 413, ["inputs has 70002 tokens", "65536"]),
    ],
)
@pytest.mark.parametrize("mode", ["late", "early"])
def test_what_cannot_be_embedded(
    http: httpx.Client, mode: str, body: dict[str, Any], status: int, words: list[str]
) -> None:
    problem(http.post("/embed_spans", json={"inputs": TEXT, "mode": mode} | body), status, *words)


def test_as_many_spans_as_are_taken(http: httpx.Client) -> None:
    spans, vectors = spanned(http, TEXT, [[0, 36]] * 16_384, dimensions=1)
    assert len(spans) == len(vectors) == 16_384
