"""HTTP as browsers, proxies and older clients speak it."""

from __future__ import annotations

import gzip
import json
import re
import socket
from typing import Any

import pytest
import zstandard

from service.deployment import Deployment
from tests.support.applications import application, ask
from tests.support.problems import openai_problem, problem
from tests.support.servers import Server

JSON = {"content-type": "application/json"}
LIMIT = 65_536
"""Bytes of a body that the small service takes."""


# HEAD, OPTIONS and what a path takes


def test_head_is_get_without_a_body(small: Server, tiny: Deployment) -> None:
    for path in ("/health", "/v1/models", "/collections", "/openapi.json", "/docs"):
        whole, head = small.http.get(path), small.http.head(path)
        assert head.status_code == whole.status_code == 200, path
        assert head.headers["content-length"] == whole.headers["content-length"] and head.content == b""
    for path, status in (("/collections/never", 404), ("/embed", 405), ("/nowhere", 404)):
        assert small.http.head(path).status_code == status
    assert ask(application(tiny), "HEAD", "/info").content == b""


def test_head_of_what_is_sent_in_parts(small: Server) -> None:
    small.http.put("/collections/head").raise_for_status()
    head = small.http.head("/collections/head/export")
    assert head.status_code == 200 and head.content == b""
    assert small.http.delete("/collections/head").status_code == 204


TAKEN = {
    "/health": "GET, HEAD, OPTIONS",
    "/embed": "POST, OPTIONS",
    "/collections/x": "GET, HEAD, PUT, DELETE, OPTIONS",
    "/collections/x/documents": "POST, OPTIONS",
    "/collections/x/documents/y": "GET, HEAD, DELETE, OPTIONS",
    "/collections/x/reindex": "GET, HEAD, POST, DELETE, OPTIONS",
    "/v1/embeddings": "POST, OPTIONS",
}


@pytest.mark.parametrize(("path", "taken"), TAKEN.items())
def test_what_a_path_takes(tiny: Deployment, path: str, taken: str) -> None:
    app = application(tiny)
    options = ask(app, "OPTIONS", path)
    assert (options.status_code, options.headers["allow"], options.content) == (204, taken, b"")
    refused = ask(app, "PATCH", path)
    check = openai_problem if path.startswith("/v1/") else problem
    check(refused, 405, "does not take PATCH")
    assert refused.headers["allow"] == taken
    problem(ask(app, "OPTIONS", "/nowhere"), 404)


# Web pages of other origins


def test_pages_of_other_origins_are_told_nothing_unless_named(tiny: Deployment) -> None:
    origin = {"origin": "https://app.example.com"}
    assert "access-control-allow-origin" not in ask(application(tiny), "GET", "/info", headers=origin).headers
    preflight = origin | {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    assert "access-control-allow-origin" not in ask(application(tiny), "OPTIONS", "/embed", headers=preflight).headers


@pytest.mark.parametrize("keys", [{}, {"mine": {"hash": "0" * 64, "scopes": ["embed"]}}])
def test_pages_of_origins_that_are_named(tiny: Deployment, keys: dict[str, Any]) -> None:
    app = application(tiny, server={"cors_origins": ["https://app.example.com"]}, access={"keys": keys})
    preflight = {"access-control-request-method": "PUT", "access-control-request-headers": "authorization,x-own"}

    allowed = ask(app, "OPTIONS", "/embed", headers={"origin": "https://app.example.com"} | preflight)
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "https://app.example.com"
    assert "PUT" in allowed.headers["access-control-allow-methods"]
    assert "authorization" in allowed.headers["access-control-allow-headers"]

    answer = ask(app, "POST", "/embed", headers={"origin": "https://app.example.com"}, json={"inputs": "a"})
    assert answer.status_code == (401 if keys else 200)  # which the page can read too
    assert answer.headers["access-control-allow-origin"] == "https://app.example.com"
    assert "access-control-allow-credentials" not in answer.headers

    other = ask(app, "OPTIONS", "/embed", headers={"origin": "https://evil.example.com"} | preflight)
    assert other.status_code == 400 and "access-control-allow-origin" not in other.headers


# Names of the service


@pytest.mark.parametrize(
    ("host", "answered"),
    [
        *(("millpond.example", True), ("MILLPOND.example:8000", True), ("a.below.example", True), ("[::1]:80", True)),
        *(("evil.example", False), ("below.example", False), ("xmillpond.example", False), ("[::2]", False)),
        *(("millpond.example.evil.example", False), ("127.0.0.1", False)),
    ],
)
def test_names_by_which_a_service_is_asked(tiny: Deployment, host: str, answered: bool) -> None:
    app = application(tiny, server={"allowed_hosts": ["Millpond.example", "*.below.example", "[::1]"]})
    answer = ask(app, "GET", "/info", headers={"host": host})
    if answered:
        assert answer.status_code == 200
    else:
        problem(answer, 400, "is not called", "server.allowed_hosts")
    assert ask(app, "GET", "/health", headers={"host": host}).status_code == 200


def test_a_service_is_asked_by_any_name_unless_some_are_named(tiny: Deployment) -> None:
    for server in ({}, {"allowed_hosts": ["*"]}):
        assert ask(application(tiny, server=server), "GET", "/info", headers={"host": "any"}).status_code == 200


# A prefix


def test_a_service_behind_a_prefix(tiny: Deployment) -> None:
    """Whether the proxy leaves it in the path or strips it."""
    app = application(tiny, server={"root_path": "/pond"})
    direct = ask(application(tiny), "POST", "/embed", json={"inputs": "a"}).json()
    for path in ("/pond/embed", "/embed"):
        assert ask(app, "POST", path, json={"inputs": "a"}).json() == direct
    for prefix in ("/pond", ""):
        assert ask(app, "GET", f"{prefix}/collections").json() == {"collections": []}
        openai_problem(ask(app, "GET", f"{prefix}/v1/models/never"), 404)
        openai_problem(ask(app, "POST", f"{prefix}/v1/embeddings", json={}), 400)
        assert ask(app, "OPTIONS", f"{prefix}/embed").headers["allow"] == "POST, OPTIONS"
        assert ask(app, "GET", f"{prefix}/openapi.json").json()["servers"] == [{"url": "/pond"}]
        assert "'/pond/openapi.json'" in ask(app, "GET", f"{prefix}/docs").text
    problem(ask(app, "GET", "/pondering"), 404)


def test_keys_behind_a_prefix(tiny: Deployment) -> None:
    access = {"keys": {"mine": {"hash": "0" * 64, "scopes": ["embed"]}}}
    app = application(tiny, server={"root_path": "/pond"}, access=access)
    for prefix in ("/pond", ""):
        assert ask(app, "GET", f"{prefix}/health").status_code == 200
        openai_problem(ask(app, "POST", f"{prefix}/v1/embeddings", json={}), 401)
        problem(ask(app, "POST", f"{prefix}/embed", json={}), 401)


@pytest.mark.parametrize("prefix", ["", "/pond"])
@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_the_documentation_needs_no_network(tiny: Deployment, prefix: str, page: str) -> None:
    app = application(tiny, server={"root_path": prefix})
    html = ask(app, "GET", page).text
    assert "://" not in html
    assert f"{prefix}/openapi.json" in html
    loaded = re.findall(r'(?:src|href)="([^"]+)"', html)
    assert len(loaded) > 1
    for url in loaded:
        assert url.startswith(f"{prefix}/docs/")
        answer = ask(app, "GET", url)
        kind = {"js": "text/javascript", "css": "text/css", "png": "image/png"}[url.rpartition(".")[2]]
        assert answer.status_code == 200 and answer.headers["content-type"].startswith(kind)
    problem(ask(app, "GET", f"{prefix}/docs/../needs.py"), 404)
    problem(ask(app, "GET", f"{prefix}/docs/__init__.py"), 404)


# Bodies that are compressed


def packed_zstd(body: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(body)


def parts_of_zstd(body: bytes, *, wide: bool = False) -> bytes:
    """A frame that does not say how long it is, as a stream is compressed; if wide, it is to be kept in 128 MiB."""
    parameters = zstandard.ZstdCompressionParameters(window_log=27 if wide else 20)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return packer.compress(body) + packer.flush()


PACKERS = [("gzip", gzip.compress), ("x-gzip", gzip.compress), ("zstd", packed_zstd), ("zstd", parts_of_zstd)]
_each_coding = pytest.mark.parametrize(("coding", "pack"), PACKERS)


@_each_coding
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("path", ["/embed", "/search"])
def test_compressed_bodies(small: Server, coding: str, pack: Any, chunked: bool, path: str) -> None:
    body = json.dumps({"inputs": ["a harp", "ein Häuschen"]} if path == "/embed" else {"query": "a"}).encode()
    packed = pack(body.ljust(LIMIT))
    content = iter([packed[:5], packed[5:]]) if chunked else packed
    answer = small.http.post(path, content=content, headers=JSON | {"content-encoding": coding})
    assert answer.status_code == (200 if path == "/embed" else 404), answer.text  # there is no collection
    assert answer.json() == small.http.post(path, content=body, headers=JSON).json()


@pytest.mark.slow
@_each_coding
def test_a_body_that_inflates_beyond_the_limit(small: Server, coding: str, pack: Any) -> None:
    for size in (LIMIT + 1, 200 * 2**20):
        packed = pack(b" " * size)
        for content in (packed, iter([packed[:7], packed[7:]])):
            answer = small.http.post("/embed", content=content, headers=JSON | {"content-encoding": coding})
            if len(packed) <= LIMIT:
                problem(answer, 413, "server.max_body_bytes")
            else:
                assert answer.status_code == 413
    assert small.http.get("/ready").status_code == 200


PACKED = gzip.compress(b'{"inputs": "a"}', mtime=0)


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_what_inflates_to_nothing_is_limited_too(small: Server, coding: str) -> None:
    if coding == "gzip":  # empty blocks that are not the last
        packed = gzip.compress(b"")[:10] + b"\0\0\0\xff\xff" * 50_000
    else:  # empty raw blocks that are not the last, in a frame of a window of 1 KiB
        packed = b"\x28\xb5\x2f\xfd\x00\x00" + b"\0\0\0" * 50_000
    answer = small.http.post("/embed", content=packed, headers=JSON | {"content-encoding": coding})
    problem(answer, 413, "server.max_body_bytes")


@pytest.mark.parametrize(
    ("coding", "content", "words"),
    [
        ("gzip", b'{"inputs": "a"}', "is no gzip, as its content-encoding says"),
        ("zstd", b'{"inputs": "a"}', "is no zstd, as its content-encoding says"),
        ("gzip", PACKED[:-1], "ends within its gzip"),
        ("zstd", packed_zstd(b'{"inputs": "a"}')[:-1], "ends within its zstd"),
        ("gzip", b"", "ends within its gzip"),
        ("gzip", PACKED * 2, "bytes follow its end"),
        ("zstd", packed_zstd(b'{"inputs": "a"}') + b"x", "bytes follow its end"),
        ("gzip", PACKED[:-4] + b"\1\2\3\4", "is no gzip"),
        ("zstd", parts_of_zstd(b" " * 1000, wide=True), "is no zstd"),
    ],
)
def test_bodies_that_are_not_what_they_say(small: Server, coding: str, content: bytes, words: str) -> None:
    for path in ("/embed", "/collections/never/documents/list"):
        answer = small.http.post(path, content=content, headers=JSON | {"content-encoding": coding})
        problem(answer, 400, words)


@pytest.mark.parametrize("coding", ["br", "deflate", "gzip, zstd", "compress", "rot13"])
def test_codings_that_are_not_known(small: Server, coding: str) -> None:
    answer = small.http.post("/embed", content=b"x", headers=JSON | {"content-encoding": coding})
    assert problem(answer, 415, repr(coding), "gzip or zstd")["code"] == "unsupported_media_type"
    assert answer.headers["accept-encoding"] == "gzip, zstd"


@pytest.mark.parametrize("coding", ["identity", ""])
def test_bodies_as_they_are(small: Server, coding: str) -> None:
    answer = small.http.post("/embed", json={"inputs": "a"}, headers={"content-encoding": coding})
    assert answer.status_code == 200


# Older clients, and connections


def talk(port: int, sent: bytes) -> bytes:
    """What a service answers to some bytes until it closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(sent)
        return client.makefile("rb").read()


def test_http_1_0(small: Server) -> None:
    body = b'{"inputs": "a harp"}'
    head = b"POST /embed HTTP/1.0\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    answer = talk(small.port, head + body)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert (
        json.loads(answer.partition(b"\r\n\r\n")[2]) == small.http.post("/embed", content=body, headers=JSON).json()
    )
    assert talk(small.port, b"HEAD /health HTTP/1.0\r\n\r\n").partition(b"\r\n\r\n")[2] == b""


def test_chunks_of_a_body(small: Server) -> None:
    head = b"POST /embed HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n"
    chunks = (
        b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (b'{"inpu', b'ts": "a ha', b'rp"}')) + b"0\r\n\r\n"
    )
    answer = talk(small.port, head + b"transfer-encoding: chunked\r\n\r\n" + chunks)
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_a_string_at_fault_is_named(small: Server) -> None:
    for content in (b'{"inputs": ["a", "\\ud800"]}', b'{"inputs": ["a", "caf\xe9"]}'):
        answer = small.http.post("/embed", content=content, headers=JSON)
        assert problem(answer, 400)["where"] == "inputs[1]"
    assert small.http.post("/embed", content=b'\xef\xbb\xbf{"inputs": "a"}', headers=JSON).status_code == 200
