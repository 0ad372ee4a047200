"""A Milvus server for tests, without a container: the package `milvus` brings one."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from service.collections.milvus import MilvusEngine

CONTRACT: Final = pytest.mark.peers
"""A collection takes seconds to be made in Milvus, and the contract makes many."""
_FAST: Final = ("proxy.timeTickInterval=20", "queryCoord.checkInterval=50", "queryCoord.distPullInterval=50")
"""What is written is seen after at most so many milliseconds, where Milvus has 200."""
_MOST_SECONDS: Final = 120


def command() -> str | None:
    """Return the command of the server, where it is installed."""
    venv = os.environ.get("MILLPOND_MILVUS")
    found = Path(venv, "bin", "milvus-server") if venv else None
    return str(found.absolute()) if found and found.exists() else shutil.which("milvus-server")


def missing_milvus() -> str | None:
    """Return what is to be installed for tests with a server, where it is not."""
    if command() is None:
        return (
            "no milvus-server: `python3 -m venv .venv-milvus && .venv-milvus/bin/pip install milvus==2.3.5`, "
            "and set MILLPOND_MILVUS=.venv-milvus"
        )
    return None if find_spec("pymilvus") else "there is no pymilvus: `pip install 'millpond[milvus]'`"


class MilvusServer:
    """A server on a port of its own, with what it has stored in a folder. One runs at a time: others are fixed."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self._folder = folder
        self.port = port or _free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        program = command()
        assert program is not None
        options = [part for each in _FAST for part in ("--extra-config", each)]
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "output.txt").open("ab") as output:
            self._process = subprocess.Popen(
                [program, "--data", str(self._folder), "--proxy-port", str(self.port), *options],
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        until = time.monotonic() + _MOST_SECONDS
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "output.txt").read_text()
            assert time.monotonic() < until, "Milvus does not answer"
            time.sleep(0.2)

    def stop(self) -> None:
        """Stop it, and leave what it has stored."""
        if self._process is not None:
            os.killpg(self._process.pid, 15)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, 9)
                self._process.wait()
            self._process = None

    def client(self, database: str = "default") -> Any:
        """Return a client of pymilvus, for what Millpond does not do itself."""
        from pymilvus import MilvusClient

        return MilvusClient(self.uri, db_name=database, timeout=10, dedicated=True)

    def engine(self, **options: Any) -> MilvusEngine:
        """Return an engine on it."""
        from service.collections.milvus import MilvusEngine

        return MilvusEngine(self.uri, **options)

    def clear(self) -> None:
        """Drop all that is stored."""
        client = self.client()
        for name in client.list_collections():
            for alias in client.describe_collection(name).get("aliases", []):
                client.drop_alias(alias)
            client.drop_collection(name)
        client.close()

    def _answers(self) -> bool:
        from pymilvus import MilvusException

        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", self.port)):
                return False
        try:
            client = self.client()
            client.list_collections(timeout=2)
            client.close()
        except MilvusException:
            return False
        return True


@contextmanager
def alone() -> Iterator[None]:
    """Wait until no other process runs a server."""
    with Path("/tmp", f"millpond-milvus-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
