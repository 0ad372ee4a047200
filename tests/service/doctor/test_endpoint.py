"""Servers that answer in one of the known shapes are found; others are named with what they said and a remedy."""

from __future__ import annotations

import asyncio
import socket

import httpx
import numpy as np
import pytest

from service.doctor.endpoint import EndpointError, find
from tests.support import checkpoints

from .conftest import answering, doctor_of_server, openai, tei

SIZE = 5


def vectors(texts):
    """Of which each tells its text."""
    return np.array([np.random.default_rng(len(text)).normal(size=SIZE) for text in texts], dtype=np.float32)


def ask(url, texts=("a", "bb", "ccc"), timeout=30, headers=None, **arguments):
    """The route that is found, and its vectors."""

    async def run():
        async with httpx.AsyncClient(timeout=timeout, trust_env=False, headers=headers) as http:
            endpoint = await find(http, url, model="the-model", **arguments)
            return endpoint, await endpoint.embed(list(texts))

    return asyncio.run(run())


def refusal(url, **arguments):
    with pytest.raises(EndpointError) as caught:
        ask(url, **arguments)
    return str(caught.value)


@pytest.mark.parametrize("base64", [False, True])
@pytest.mark.parametrize(
    ("served", "asked"),
    [
        ("/v1/embeddings", ""),
        ("/v1/embeddings", "/"),
        ("/v1/embeddings", "/v1"),
        ("/v1/embeddings", "/v1/embeddings"),
        ("/embeddings", ""),
        ("/embeddings", "/embeddings"),
    ],
)
def test_openais_shape_wherever_it_is(served, asked, base64):
    with answering(openai(vectors, path=served, base64=base64)) as url:
        endpoint, found = ask(url + asked)
        assert (endpoint.kind, endpoint.url, endpoint.model) == ("OpenAI", url + served, "one")
        assert np.array_equal(found, vectors(["a", "bb", "ccc"]))  # in order, though they come in another


def test_teis_shape():
    with answering(tei(vectors)) as url:
        for asked in (url, f"{url}/embed", f"{url}/embed/"):
            endpoint, found = ask(asked)
            assert (endpoint.kind, endpoint.url) == ("TEI", f"{url}/embed")
            assert np.array_equal(found, vectors(["a", "bb", "ccc"]))


def test_a_name_that_the_server_does_not_know():
    with answering(openai(vectors)) as url:
        message = refusal(url, model_name="two")
    assert f"{url}/v1/embeddings answered 400: the model 'two' does not exist" in message


def test_a_key():
    def guarded(method, path, headers, body):
        if headers["authorization"] != "Bearer secret":
            return 401, {"error": "no"}
        return openai(vectors)(method, path, headers, body)

    with answering(guarded) as url:
        message = refusal(url)
        assert "answered 401: it wants a key" in message and "--api-key" in message
        assert ask(url, headers={"authorization": "Bearer secret"})[0].kind == "OpenAI"


def test_nobody_there():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        message = refusal(url)
    assert message.startswith(f"no server answers at {url}") and "Start it, or correct --url" in message


def test_a_server_that_hangs_up_or_never_answers():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/embed"
        assert refusal(url, timeout=0.2).startswith(f"{url} did not answer in time")

    def hang_up(method, path, headers, body):
        raise ConnectionResetError

    with answering(hang_up) as url:
        assert refusal(f"{url}/embed").startswith(f"no server answers at {url}/embed (Server disconnected")


@pytest.mark.parametrize("status", [404, 405, 501])
def test_no_route_for_vectors(status):
    with answering(lambda method, path, headers, body: (status, {"detail": "Not Found"})) as url:
        message = refusal(url)
    assert message.startswith(
        f"no vectors are to be had at {url}: {url}/v1/embeddings answered {status}: Not Found; "
    )
    assert "http://host:port/v1/embeddings" in message and "--model-name" in message


@pytest.mark.parametrize("route", ["/v1/embeddings", "/embed"])
@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"<html>It works!</html>",
        b"[[1, 2], [3, 4], [5,",
        b"\xff\xfe",
        None,
        {},
        [],
        "vectors",
        3,
        [1, 2, 3],
        [[1], [2, 3], [4]],
        [["a"], ["b"], ["c"]],
        [[], [], []],
        [{"x": 1}] * 3,
        [[[1]], [[2]], [[3]]],
        {"data": 3},
        {"data": []},
        {"data": [{"index": 0}]},
        {"data": [{"index": "a", "embedding": [1]}, {"index": 1, "embedding": [1]}]},
        {"data": [{"index": 0, "embedding": "not base64!"}]},
        {"data": [{"index": 0, "embedding": None}]},
        {"data": [{"index": 0, "embedding": [{}]}]},
        {"error": {"message": "out of memory"}},
    ],
    ids=repr,
)
def test_nonsense(route, answer):
    with answering(lambda method, path, headers, body: (200, answer)) as url:
        message = refusal(url + route)
    assert message.startswith(f"{url}{route} answered 200 with something other than 1 vectors of one size")
    assert len(message) < 400


def test_fewer_vectors_than_texts():
    with answering(tei(lambda texts: vectors(texts[:1]))) as url:
        assert "something other than 3 vectors" in refusal(url)


@pytest.mark.parametrize("value", [b"[[NaN, 1]]", b"[[null, 1]]", b"[[1e999, 1]]", b"[[0, 0.0]]"])
def test_vectors_that_are_none(value):
    with answering(lambda method, path, headers, body: (200, value)) as url:
        assert refusal(f"{url}/embed").startswith(f"{url}/embed ")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"error": {"message": "out of\n memory"}}, "out of memory"),
        ({"error": "overloaded"}, "overloaded"),
        ({"title": "Full", "detail": "the queue is full."}, "the queue is full"),
        (b"upstream failed", "upstream failed"),
        ([], "[]"),
    ],
)
def test_a_server_that_fails(answer, words):
    with answering(lambda method, path, headers, body: (500, answer)) as url:
        message = refusal(url)
    assert f"{url}/v1/embeddings answered 500: " in message and words in message
    assert message.endswith("See the server's log; give --model-name where it wants another name.")


def test_other_dimensions(tmp_path):
    bert = checkpoints.plain_bert(tmp_path / "bert")
    with answering(openai(vectors)) as url, pytest.raises(EndpointError) as caught:
        doctor_of_server(bert, url)
    message = f"{url}/v1/embeddings gives vectors of 5 dimensions, and the-model gives 24: it serves another model."
    assert str(caught.value).startswith(message)
