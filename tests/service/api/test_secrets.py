"""What no log has: the texts of requests and the keys of clients."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import yaml

from service.access import digest, new_key
from tests.support.applications import EXPORTED
from tests.support.servers import Launcher, environment_without_settings, free_port

VERBOSE = """
import logging
from service.observation import logs
configure = logs.configure

def configure_all(*given):
    configure(*given)
    for name in (None, *logs._OWN):
        logging.getLogger(name).setLevel(1)
    logging.getLogger().handlers[0].setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s %(args)s"))

logs.configure = configure_all
from service.cli import main
main()
"""
"""The service with everything logged that any library would log."""


@pytest.mark.slow
def test_nothing_that_a_client_sends_is_logged(tmp_path: Path) -> None:
    known, unknown = new_key(), new_key()
    secret = uuid4().hex
    keys = tmp_path / "keys.yaml"
    keys.write_text(yaml.safe_dump({"mine": {"hash": digest(known), "scopes": ["admin"]}}))
    config = tmp_path / "config.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "models": {"default": {"encoder": str(EXPORTED)}},
                "runtime": {"backend": "torch", "precision": "fp32"},
                "store": {"path": str(tmp_path / "store")},
                "server": {"access_log": True},
                "access": {"keys_file": str(keys)},
            }
        )
    )
    port = free_port()
    command = [sys.executable, "-c", VERBOSE, "serve", "--config", config, "--port", str(port)]
    env = environment_without_settings() | {"PYTHONASYNCIODEBUG": "1"}
    with Launcher(command, port, tmp_path / "log", ready="/ready", env=env) as server:
        statuses = [send(server.http, key, secret) for key in (known, unknown)]
        # A broken file of keys, into which somebody has put a key in place of its hash.
        keys.write_text(yaml.safe_dump({"mine": {"hash": known, "scopes": ["admin"]}}))
        while "the keys stay as they were" not in server.log.read_text():
            server.http.get("/info", headers={"authorization": f"Bearer {known}"})
    assert [sorted(set(each)) for each in statuses] == [[200, 201, 204, 400, 404, 422], [401]]
    logged = server.log.read_text()
    assert "DEBUG " in logged and "mine.hash: must be the SHA-256" in logged
    for word in (secret, known, unknown, known[-32:], unknown[-32:]):
        assert word not in logged


def send(http: httpx.Client, key: str, secret: str) -> list[int]:
    """Send requests of all kinds, good ones and bad, whose texts hold a secret; give the statuses of the answers."""
    notes = f"/collections/c{uuid4().hex}"
    document = {"id": f"id {secret}", "text": f"text {secret}", "metadata": {"of": secret}}
    requests: list[tuple[str, str, Any]] = [
        ("POST", "/embed", {"inputs": [f"text {secret}"]}),
        ("POST", "/embed", {"inputs": secret, "model": secret}),
        ("POST", "/embed", {"inputs": secret, secret: secret}),
        ("POST", "/embed", {"inputs": secret, "pooling": secret}),
        ("POST", "/v1/embeddings", {"model": "default", "input": secret}),
        ("POST", "/explain", {"text": secret}),
        ("PUT", notes, {}),
        ("POST", f"{notes}/documents", {"documents": [document]}),
        ("POST", f"{notes}/documents", {"documents": [document | {"metadata": {secret: 2**70}}]}),
        ("POST", f"{notes}/search", {"query": secret}),
        ("POST", f"{notes}/search", {"query": secret, "filter": {"of": {"$eq": secret}}}),
        ("POST", f"{notes}/search", {"query": secret, "filter": {"of": {f"${secret}": 1}}}),
        ("POST", f"{notes}/documents/get", {"ids": [secret]}),
        ("POST", f"{notes}/documents/count", {"filter": {"of": secret}}),
        ("DELETE", notes, None),
    ]
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    statuses = [http.request(method, path, json=body, headers=headers).status_code for method, path, body in requests]
    broken = f'{{"inputs": "{secret} \\ud800"}}'.encode()
    statuses.append(http.post("/embed", content=broken, headers=headers).status_code)
    return statuses
