"""Reading the config again by `POST /admin/reload`; what SIGHUP does is the same."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest
import yaml
from fastapi import FastAPI

from service.access import Keyring, digest
from service.api import create_app
from service.config import Config, load_config
from service.deployment import Deployment
from tests.support.applications import EXPORTED, application, ask
from tests.support.problems import problem

ADMIN, OTHER = (f"millpond_{digest(name)}" for name in ("admin", "other"))


class Files:
    """A config and its keys as files, and the application that is served by them."""

    def __init__(self, served: Deployment, folder: Path) -> None:
        self.config, self.keys = folder / "config.yaml", folder / "keys.yaml"
        self.write()
        self.write_keys(admin=ADMIN)
        config = self._read()
        self.served = replace(served, config=config, keys=Keyring(config.access), read=self._read)
        self.app: FastAPI = create_app(self.served)

    def write(self, **sections: Any) -> None:
        always = {
            "models": {"default": {"encoder": str(EXPORTED)}},
            "access": {"keys_file": str(self.keys)},
        }
        self.config.write_text(yaml.safe_dump(always | sections))

    def write_keys(self, **keys: str) -> None:
        listed = {name: {"hash": digest(key), "scopes": ["admin"]} for name, key in keys.items()}
        self.keys.write_text(yaml.safe_dump(listed))

    def _read(self) -> Config:
        return load_config(self.config, env={})


@pytest.fixture
def files(tiny: Deployment, tmp_path: Path) -> Iterator[Files]:
    yield Files(tiny, tmp_path)
    tiny.reload(tiny.config)


def limits(files: Files) -> dict[str, Any]:
    found: dict[str, Any] = ask(files.app, "GET", "/info", ADMIN).json()["limits"]
    return found


def test_the_answer_says_what_was_read(files: Files) -> None:
    before = limits(files)
    files.write(server={"max_texts": 3, "log_level": "warning", "port": 9000}, batching={"max_queued_seconds": 2})
    files.write_keys(admin=ADMIN, other=OTHER)
    answer = ask(files.app, "POST", "/admin/reload", ADMIN)
    assert answer.status_code == 200
    told = {key: sorted(names) for key, names in answer.json().items()}
    assert told == {
        "changed": ["batching.max_queued_seconds", "server.log_level", "server.max_texts"],
        "restart": ["server.port"],
        "keys": ["admin", "other"],
    }
    assert limits(files) == before | {"max_texts": 3, "max_queued_seconds": 2}
    assert ask(files.app, "POST", "/embed", OTHER, json={"inputs": "a"}).status_code == 200
    problem(ask(files.app, "POST", "/embed", OTHER, json={"inputs": ["a"] * 4}), 413, "takes 3")
    again = ask(files.app, "POST", "/admin/reload", ADMIN).json()
    assert again == {"changed": [], "restart": ["server.port"], "keys": ["admin", "other"]}


def test_a_fault_changes_nothing(files: Files) -> None:
    before = limits(files)
    files.write(server={"max_textts": 3, "max_requests": 2})
    told = problem(
        ask(files.app, "POST", "/admin/reload", ADMIN), 409, "config.yaml", "server.max_textts", "max_texts"
    )
    assert told["code"] == "invalid_configuration"
    files.write(server={"max_requests": 2})
    files.keys.write_text("- a")
    told = problem(ask(files.app, "POST", "/admin/reload", ADMIN), 409, "keys.yaml", "a mapping of their names")
    assert told["code"] == "invalid_configuration"
    assert limits(files) == before


def test_others_are_answered_while_files_are_read(files: Files) -> None:
    """As by a disk that hangs."""
    reading, go_on = Event(), Event()

    def slowly() -> Config:
        reading.set()
        go_on.wait(30)
        return load_config(files.config, env={})

    app = create_app(replace(files.served, read=slowly))

    async def both() -> tuple[int, int]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as http:
            reload = asyncio.create_task(http.post("/admin/reload", headers={"authorization": f"Bearer {ADMIN}"}))
            while not reading.is_set():
                await asyncio.sleep(0.01)
            answered = await http.get("/health")
            assert not reload.done()
            go_on.set()
            return answered.status_code, (await reload).status_code

    assert asyncio.run(both()) == (200, 200)


def test_a_deployment_without_a_file_reads_none(tiny: Deployment) -> None:
    answer = ask(application(tiny, server={"max_texts": 5}), "POST", "/admin/reload")
    assert answer.json() == {"changed": [], "restart": [], "keys": []}
