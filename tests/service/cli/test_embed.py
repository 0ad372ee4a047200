"""`millpond embed`, over HTTP and inside the process."""

from __future__ import annotations

import io
import json
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from service.cli.console import Failure
from tests.support.deployed import deployed
from tests.support.servers import ROOT

from .conftest import COMMAND

TEXTS = ["A man is playing a harp.", "A cat sleeps in the sun."]
SIDE_BY_SIDE = ROOT / "configs" / "side-by-side.yaml"


def vectors(result):
    assert result.returncode == 0, result.stderr
    return np.array([json.loads(line) for line in result.stdout.splitlines()], np.float32)


@pytest.fixture
def expected(side_by_side):
    return np.array(side_by_side.http.post("/embed", json={"inputs": TEXTS}).json(), np.float32)


def test_arguments_stdin_and_files_give_the_same(asking, tmp_path, expected):
    plain, records = tmp_path / "texts.txt", tmp_path / "texts.jsonl"
    plain.write_text("\n".join(TEXTS) + "\n")
    records.write_text("".join(json.dumps({"text": text, "more": 1}) + "\n" for text in TEXTS))
    for result in (
        asking("embed", *TEXTS),
        asking("embed", input="\n".join(TEXTS)),
        asking("embed", "--input", plain),
        asking("embed", "--input", records),
    ):
        np.testing.assert_array_equal(vectors(result), expected)
        assert result.stderr == ""


@pytest.mark.slow
def test_in_process_equals_over_http(asking, millpond, tmp_path):
    options = ("embed", *TEXTS, "--model", "cls", "--pooling", "gem(p=3)", "--dimensions", 64)
    inside = millpond(*options, "--config", SIDE_BY_SIDE, env={"MILLPOND_RUNTIME__PRECISION": "fp32"})
    np.testing.assert_allclose(vectors(inside), vectors(asking(*options)), atol=1e-6)
    assert vectors(inside).shape == (2, 64)


@pytest.mark.parametrize("written", ["{use: [first, last], by: mean}", '{"use": [1, 2]}'])
def test_other_layers_are_written_as_in_a_config(here, written):
    with deployed(here.store, layers={"use": ["first", "last"]}) as served:
        wanted = served.post("/embed", {"inputs": TEXTS}).json()
    lines = here("embed", *TEXTS, "--layers", written).stdout.splitlines()
    np.testing.assert_allclose([json.loads(line) for line in lines], wanted, atol=1e-5)


@pytest.mark.parametrize("command", ["embed", "explain"])
def test_what_names_no_layers(here, command):
    for written in ("[1, 2]", "2", "{use: [1", "!!set {1}", ""):
        said = here(command, "x", "--layers", written).exception
        assert isinstance(said, Failure) and f"--layers {written!r}: names no layers. Write it as last, " in str(said)
    for written in ("first", "{use: [99]}"):
        said = here(command, "x", "--layers", written).exception
        assert isinstance(said, Failure) and "layers" in str(said)


@pytest.mark.slow
def test_npy(asking, tmp_path, expected):
    written = asking("embed", *TEXTS, "--format", "npy", "--output", tmp_path / "vectors.npy")
    assert (written.returncode, written.stdout) == (0, "")
    piped = asking("embed", *TEXTS, "--format", "npy", text=False)
    for array in (np.load(tmp_path / "vectors.npy"), np.load(io.BytesIO(piped.stdout))):
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, expected)


@pytest.mark.slow
def test_order_is_kept_over_many_requests(asking, side_by_side):
    texts = [f"number {n} " + "harp " * (n % 7) for n in range(150)]
    found = vectors(asking("embed", input="\n".join(texts)))
    direct = np.array(side_by_side.http.post("/embed", json={"inputs": texts}).json())
    np.testing.assert_allclose(found, direct, atol=1e-5)


@pytest.mark.slow
def test_what_cannot_be_embedded(asking, tmp_path):
    latin = tmp_path / "latin.txt"
    latin.write_bytes(b"fine\nna\xefve\n")
    records = tmp_path / "records.jsonl"
    records.write_text('{"text": "fine"}\n{"txt": "x"}\n')
    long = "harp " * 300
    for arguments, options, status, message in (
        (("one", long), {}, 1, "text 2 has 302 tokens and the model takes 256. Give --truncate"),
        ((), {"input": "one\n" * 70 + long}, 1, "standard input: line 71 has 302 tokens"),
        ((), {"input": "one\n\ntwo"}, 2, "standard input: line 2 is empty"),
        ((), {"input": ""}, 2, "holds no text"),
        (("--input", latin), {}, 2, "line 2 is not valid UTF-8 at byte 3"),
        (("--input", records), {}, 2, "line 2: has no 'text'. Did you mean 'txt'?"),
        (("--input", tmp_path / "none"), {}, 2, "No such file"),
        (("one", "--input", latin), {}, 2, "not both"),
        (("one", "--pooling", "meen"), {}, 1, "did you mean 'mean'?"),
        (("one", "--prompt-name", "query"), {}, 1, "has no prompt 'query'"),
        (("one", "--dimensions", 385), {}, 1, "dimensions must be from 1 to 384"),
        (("one", "--output", tmp_path / "no" / "file"), {}, 2, "No such file"),
        (("one", "--url", "localhost:8000"), {}, 2, "must begin with http://"),
        (("\udcff",), {}, 2, "valid UTF-8"),
    ):
        result = asking("embed", *arguments, **options)
        assert result.returncode == status and message in result.stderr, (arguments, result.stderr)
        assert len(result.stderr.splitlines()) == 1, result.stderr
    assert vectors(asking("embed", long, "--truncate")).shape == (1, 384)


@pytest.mark.slow
def test_a_reader_that_goes_is_no_error(environment, side_by_side):
    process = subprocess.Popen(
        [*COMMAND, "embed", "--url", side_by_side.url],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    process.stdin.write(b"A man is playing a harp.\n" * 200)
    process.stdin.close()
    assert process.stderr.read() == b""
    process.wait(60)


@pytest.mark.slow
def test_a_config_that_is_wrong(millpond, tmp_path):
    result = millpond("embed", "x", "--config", tmp_path / "none.yaml")
    assert result.returncode == 2
    assert "there is no such file" in result.stderr and len(result.stderr.splitlines()) == 1


@pytest.fixture
def stand_in():
    """Something that is no Millpond: it gives prepared answers, one a request, the last one for ever."""
    servers = []

    def start(*answers):
        left = list(answers)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                self.rfile.read(int(self.headers["content-length"]))
                status, headers, body = left.pop(0) if len(left) > 1 else left[0]
                self.send_response(status)
                for key, value in {**headers, "content-length": str(len(body))}.items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}", left

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.slow
def test_a_busy_service_is_asked_again(millpond, stand_in):
    busy = (503, {"retry-after": "1"}, b'{"detail": "the queue is full"}')
    url, left = stand_in(busy, busy, (200, {}, b"[[0.5, 0.25]]"))
    result = millpond("embed", "x", "--url", url)
    assert (result.returncode, result.stdout, result.stderr) == (0, "[0.5,0.25]\n", "")
    assert len(left) == 1


@pytest.mark.parametrize("status", [200, 404])
def test_something_else_answers(millpond, stand_in, status):
    url, _ = stand_in((status, {}, b"<html>"))
    result = millpond("embed", "x", "--url", url)
    assert result.returncode == 1
    assert "Is --url right?" in result.stderr and len(result.stderr.splitlines()) == 1
