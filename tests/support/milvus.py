"""A Milvus server for tests, without a container: the package `milvus` brings one."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import time
from contextlib import suppress
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
_PARTS: Final = (
    "rootCoord.port",
    "proxy.internalPort",
    "queryCoord.port",
    "queryNode.port",
    "indexNode.port",
    "dataCoord.port",
    "dataNode.port",
)
"""What has a port of its own; one that is killed is looked for where it was."""
_MOST_SECONDS: Final = 120
_PROGRAM: Final = """
import ctypes, os, sys

ctypes.CDLL(None).prctl(1, 9)  # the server ends with the process that has started it, however that ends
from milvus import MilvusServer, _initialize_data_files

unpacked = os.path.join(sys.prefix, "unpacked")
_initialize_data_files(unpacked)
server = MilvusServer()
server.set_base_dir(sys.argv[1])
for option in sys.argv[2:]:
    name, value = option.split("=")
    server.config.set(name, value)
server.config.resolve()
os.makedirs(os.path.join(sys.argv[1], "logs"), exist_ok=True)
os.chdir(sys.argv[1])
binary = os.path.join(unpacked, "bin", "milvus")
os.environ |= {
    "DEPLOY_MODE": "STANDALONE",
    "MILVUS_RUN_DIR": os.path.join(sys.argv[1], "run"),
    "LD_LIBRARY_PATH": os.path.dirname(binary),
}
os.execv(binary, [binary, "run", "standalone"])
"""
"""Becomes the server, as `milvus-server` would start it: one process, which can be killed."""
_ETCD: Final = """
name: default
listen-client-urls: http://127.0.0.1:{client}
advertise-client-urls: http://127.0.0.1:{client}
listen-peer-urls: http://127.0.0.1:{peer}
initial-advertise-peer-urls: http://127.0.0.1:{peer}
initial-cluster: default=http://127.0.0.1:{peer}
"""


def command() -> str | None:
    """Return the Python that has the server, where it is installed."""
    venv = os.environ.get("MILLPOND_MILVUS")
    found = Path(venv, "bin", "milvus-server") if venv else None
    program = found if found and found.exists() else shutil.which("milvus-server")
    return None if program is None else str(Path(program).absolute().with_name("python"))


def missing_milvus() -> str | None:
    """Return what is to be installed for tests with a server, where it is not."""
    if command() is None:
        return (
            "no milvus-server: `python3 -m venv .venv-milvus && .venv-milvus/bin/pip install milvus==2.3.5`, "
            "and set MILLPOND_MILVUS=.venv-milvus"
        )
    return None if find_spec("pymilvus") else "there is no pymilvus: `pip install 'millpond[milvus]'`"


class MilvusServer:
    """A server on a port of its own, with what it has stored in a folder.

    Its other ports are free ones too, so that several run side by side.

    Args:
        folder: where it is, and stays after its end.
        options: further keys of its configuration, such as `proxy.maxTaskNum=9`.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder = folder
        self.port = _free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._etcd = {"client": _free_port(), "peer": _free_port()}
        self._options = [f"proxy.port={self.port}", *(f"{part}={_free_port()}" for part in _PARTS), *_FAST, *options]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        python = command()
        assert python is not None
        self._folder.mkdir(parents=True, exist_ok=True)
        etcd = self._folder / "etcd.yaml"
        etcd.write_text(_ETCD.format(**self._etcd))
        with (self._folder / "output.txt").open("ab") as output:
            self._process = subprocess.Popen(
                [python, "-c", _PROGRAM, str(self._folder), *self._options],
                env={**os.environ, "ETCD_CONFIG_PATH": str(etcd), "METRICS_PORT": str(_free_port())},
                stdout=output,
                stderr=output,
            )
        until = time.monotonic() + _MOST_SECONDS
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "output.txt").read_text()[-5_000:]
            assert time.monotonic() < until, "Milvus does not answer"
            time.sleep(0.2)

    def stop(self) -> None:
        """Stop it, and leave what it has stored."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def kill(self) -> None:
        """End it in the middle of whatever it does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

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


def _free_port() -> int:
    """Return a free port of those that no connection has as its own end: who tries again might connect to itself."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as taken, suppress(OSError):
            taken.bind(("127.0.0.1", port))
            return port
