"""The report on vulnerable dependencies: it tells what a database knows, and stops nothing where none is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.support.servers import ROOT, free_port

pytestmark = pytest.mark.slow
PINS = (ROOT / "constraints.txt").read_text().splitlines()
NOBODY = f"http://127.0.0.1:{free_port()}"


def audit(*options: str, **env: str) -> str:
    command = [sys.executable, ROOT / ".ci" / "audit", *options]
    done = subprocess.run(command, env=os.environ | env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture
def database() -> Iterator[str]:
    """The address of a database after OSV's that knows of one fault, in PyYAML."""

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))["package"]
            events = [{"introduced": "0"}, {"fixed": "9999.1"}]
            fault = {
                "id": "PYSEC-2026-1",
                "aliases": ["CVE-2026-1"],
                "summary": "a fault",
                "affected": [{"package": asked, "ranges": [{"type": "ECOSYSTEM", "events": events}]}],
            }
            body = json.dumps({"vulns": [fault]} if asked["name"] == "pyyaml" else {}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
        server.shutdown()


def test_what_a_database_knows_is_told(database: str) -> None:
    told = audit("--vulnerability-service", "osv", "--osv-url", database)
    (version,) = (pin.partition("==")[2] for pin in PINS if pin.startswith("PyYAML=="))
    assert f"the database knows {len(PINS)} of {len(PINS)} pinned packages, and 1 vulnerabilities." in told
    assert f"  pyyaml {version}: " in told and "CVE-2026-1" in told and "fixed in 9999.1" in told


def test_without_a_network_nothing_is_known_and_nothing_fails() -> None:
    told = audit(HTTPS_PROXY=NOBODY, https_proxy=NOBODY, NO_PROXY="", no_proxy="")
    assert told.startswith("pip-audit: nothing is known: the database cannot be asked (")
    assert told.count("\n") == 1
