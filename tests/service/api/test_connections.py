"""How connections are served: encrypted, and how long idle ones stay open."""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPResponse
from pathlib import Path

import httpx
import pytest

from service.api.connections import MOST_HELD
from service.cli.console import Failure
from service.cli.tls import server_context
from service.config import ServerConfig, TLSConfig
from tests.support.servers import ROOT, Server

MEAN = ROOT / "configs" / "mean.yaml"


class HTTPSServer(Server):
    """A service that is asked by HTTPS."""

    def __init__(self, store: Path, tls: dict[str, Path | str], trusted: ssl.SSLContext) -> None:
        env = {f"MILLPOND_TLS__{key.upper()}": str(value) for key, value in tls.items()}
        super().__init__(MEAN, store, env | {"MILLPOND_SERVER__KEEP_ALIVE": "1"})
        self.http.close()
        self.url = self.url.replace("http:", "https:")
        self.http = httpx.Client(base_url=self.url, timeout=300, trust_env=False, verify=trusted)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority's `ca.pem`, and a server's and a client's certificates and keys, made by openssl."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new_key = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    openssl(*new_key, "-x509", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca", "-days", "2")
    for name, protection in (("server", ("-passout", "pass:secret")), ("client", ("-nodes",))):
        openssl(*new_key, *protection, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (folder / "san").write_text("subjectAltName=IP:127.0.0.1")
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-days", "2", "-extfile", "san")
        openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *signed)
    return folder


@pytest.mark.slow
def test_https_with_certificates_of_clients(certificates: Path, tmp_path: Path) -> None:
    files: dict[str, Path | str] = {
        "certfile": certificates / "server.pem",
        "keyfile": certificates / "server.key",
        "password": "secret",
        "client_ca": certificates / "ca.pem",
    }
    trusted = ssl.create_default_context(cafile=certificates / "ca.pem")
    stranger = ssl.create_default_context(cafile=certificates / "ca.pem")
    trusted.load_cert_chain(certificates / "client.pem", certificates / "client.key")
    with HTTPSServer(tmp_path / "store", files, trusted) as server:
        assert server.http.post("/embed", json={"inputs": "a"}).status_code == 200
        with httpx.Client(verify=stranger, trust_env=False) as http, pytest.raises(httpx.TransportError):
            http.get(f"{server.url}/health")
        with httpx.Client(trust_env=False) as http, pytest.raises(httpx.TransportError):
            http.get(server.url.replace("https:", "http:") + "/health")
        with (
            socket.create_connection(("127.0.0.1", server.port), timeout=60) as plain,
            trusted.wrap_socket(plain, server_hostname="127.0.0.1") as client,
        ):
            _sends_before_it_reads(client, b"content-length: 1000000000")
        _closes_idle_connections(server.port, trusted)
    assert "https://127.0.0.1:" in server.log.read_text()


def _closes_idle_connections(port: int, trusted: ssl.SSLContext) -> None:
    """A second after the answer, as server.keep_alive says; otherwise this waits in vain."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=60) as plain,
        trusted.wrap_socket(plain, server_hostname="127.0.0.1") as client,
    ):
        client.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        answer = client.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 200 ") and b"connection: close" not in answer.lower()


def test_idle_connections_outlive_those_of_proxies() -> None:
    """Which keep theirs for 60 s, as a rule, and get an error where the service closes first."""
    assert ServerConfig().keep_alive == 75


def test_https_that_is_not_wanted() -> None:
    assert server_context(TLSConfig()) is None


def test_https_that_cannot_be_served(certificates: Path, tmp_path: Path) -> None:
    for tls, words in (
        ({"keyfile": "server.key"}, "tls.certfile: is missing"),
        ({"certfile": "none.pem"}, "tls.certfile none.pem: No such file"),
        ({"certfile": "server.pem"}, "cannot be used together"),
        ({"certfile": "server.pem", "keyfile": "none.key"}, "tls.keyfile none.key: No such file"),
        ({"certfile": "server.pem", "keyfile": "server.key"}, "tls.password"),
        ({"certfile": "server.pem", "keyfile": "server.key", "password": "wrong"}, "tls.password"),
        ({"certfile": "server.pem", "keyfile": "client.key"}, "cannot be used together"),
        ({"certfile": "client.pem", "keyfile": "client.key", "client_ca": "client.key"}, "holds no certificate"),
    ):
        files = {
            name: value if name == "password" or value.startswith("none") else certificates / value
            for name, value in tls.items()
        }
        with pytest.raises(Failure, match=words) as refused:
            server_context(TLSConfig.model_validate(files))
        assert refused.value.exit_status == 2 and "wrong" not in str(refused.value)


@pytest.mark.parametrize("key", ["certfile", "keyfile", "client_ca"])
def test_a_pipe_is_no_certificate(certificates: Path, tmp_path: Path, key: str) -> None:
    """Nobody writes into it, so it would be waited for."""
    os.mkfifo(tmp_path / "pipe")
    files = {"certfile": certificates / "server.pem", key: tmp_path / "pipe"}
    with pytest.raises(Failure, match=f"tls.{key} .*pipe: is no regular file") as refused:
        server_context(TLSConfig.model_validate(files))
    assert refused.value.exit_status == 2


def test_a_head_without_end(small: Server) -> None:
    """It is refused before it takes memory, whatever part of it does not end, and the service answers meanwhile."""
    for begun in (b"GET /", b"GET /health HTTP/1.1\r\nx: ", b"GET /health HTTP/1.1\r\n"):
        part = b"a: b\r\n" * 10_000 if begun.endswith(b"\n") else b"a" * 60_000
        with socket.create_connection(("127.0.0.1", small.port), timeout=60) as client:
            client.sendall(begun)
            taken = _sent(client, part, 8 * 2**20)
            assert taken < 8 * 2**20
        assert small.http.get("/health").status_code == 200


def test_a_head_that_is_too_large_is_told(small: Server) -> None:
    with socket.create_connection(("127.0.0.1", small.port), timeout=60) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nx: ")
        time.sleep(0.2)
        client.sendall(b"a" * (MOST_HELD + 1))
        assert client.makefile("rb").read().startswith(b"HTTP/1.1 431 ")
    with socket.create_connection(("127.0.0.1", small.port), timeout=60) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nconnection: close\r\nx: " + b"a" * (MOST_HELD // 2))
        time.sleep(0.2)
        client.sendall(b"a" * (MOST_HELD // 3) + b"\r\n\r\n")
        assert client.makefile("rb").read().startswith(b"HTTP/1.1 200 ")


def test_what_follows_a_body_without_end(small: Server) -> None:
    head = b"POST /embed HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    for begun in (b"1\r\na\r\n0\r\nx: ", b"1;x="):
        with socket.create_connection(("127.0.0.1", small.port), timeout=60) as client:
            client.sendall(head + begun)
            assert _sent(client, b"a" * 60_000, 8 * 2**20) < 8 * 2**20


@pytest.mark.parametrize("framing", [b"content-length: 1000000000", b"transfer-encoding: chunked"])
def test_an_answer_before_a_body_that_is_too_large_has_been_sent(small: Server, framing: bytes) -> None:
    """A client that asks for the end of its connection, and sends all before it reads, is not cut off."""
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", small.port), timeout=60) as client:
            _sends_before_it_reads(client, framing)


def _sends_before_it_reads(client: socket.socket, framing: bytes) -> None:
    client.sendall(b"POST /embed HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nconnection: close\r\n")
    client.sendall(framing + b"\r\n\r\n")
    for _ in range(80):
        client.sendall((b"100000\r\n" if b"chunked" in framing else b"") + b"a" * 2**20 + b"\r\n")
    with HTTPResponse(client) as answer:
        answer.begin()
        assert answer.status == 413 and b"server.max_body_bytes" in answer.read()


def _sent(client: socket.socket, part: bytes, most: int) -> int:
    """Send parts until the other side has closed, and return how many bytes that took, `most` at most."""
    sent = 0
    with suppress(ConnectionError):
        while sent < most:
            client.sendall(part)
            sent += len(part)
            time.sleep(0.01)
    return sent


@pytest.mark.slow
def test_connections_on_which_no_request_comes(tmp_path: Path) -> None:
    """Idle from the start, in the middle of a head, or of a second one; otherwise this waits in vain."""
    with Server(MEAN, tmp_path / "store", {"MILLPOND_SERVER__KEEP_ALIVE": "1"}) as server:
        for sent in (b"", b"GET /health HT", b"GET /health HTTP/1.1\r\nhost: x\r\n\r\nGET /health HT"):
            with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
                client.sendall(sent)
                assert client.makefile("rb").read().count(b"HTTP/1.1 200 ") == sent.count(b"\r\n\r\n")


@pytest.mark.slow
def test_another_protocol_that_is_asked_for(small: Server) -> None:
    """HTTP/2, as Java's client asks for it, and WebSockets; requests are answered, those with bodies too."""
    body = b'{"inputs": "\\r\\nupgrade: x"}'
    about = b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    chunked = b"content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    for protocol in (b"h2c", b"websocket"):
        upgrade = b"connection: upgrade\r\nUpgrade: " + protocol + b"\r\nsec-websocket-version: 13\r\n"
        with socket.create_connection(("127.0.0.1", small.port), timeout=60) as client:
            for request in (
                b"GET /health HTTP/1.1\r\nhost: x\r\n" + upgrade + b"sec-websocket-key: eA==\r\n\r\n",
                b"POST /embed HTTP/1.1\r\nhost: x\r\n" + upgrade + about + body,
                b"POST /embed HTTP/1.1\r\nhost: x\r\n"
                + upgrade
                + chunked
                + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body),
                b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n",
            ):
                for parts in ([request], [request[:60], request[60:]], [request[:-9], request[-9:]], [*cut(request)]):
                    for part in parts:
                        client.sendall(part)
                        time.sleep(0.01)
                    response = HTTPResponse(client)
                    response.begin()
                    assert (response.status, bool(response.read())) == (200, True)
            post = b"POST /embed HTTP/1.1\r\nhost: x\r\n" + upgrade + about + body
            client.sendall(post + request + post + b"GET /health HTTP/1.1\r\nconnection: close\r\n\r\n")
            assert client.makefile("rb").read().count(b"HTTP/1.1 200 ") == 4
    told = small.log.read_text()
    assert "Exception in ASGI" not in told and "Unsupported upgrade" not in told


def cut(request: bytes) -> Iterator[bytes]:
    """Cut a request within the name of each header, and before and after its value."""
    head, end, rest = request.partition(b"\r\n\r\n")
    yield from re.split(rb"(?<=\r\n..)|(?<=: )|(?=\r\n)", head)
    yield from (end, rest)
