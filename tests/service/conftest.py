import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from service.collections.embedded import EmbeddedEngine
from service.store import Document
from tests.support.disks import CannotMount, mounted
from tests.support.milvus import MilvusServer, missing_milvus


@pytest.fixture(scope="session")
def milvus_server(tmp_path_factory):
    """A Milvus server that runs until the end; skips what needs it where there is none."""
    if missing := missing_milvus():
        pytest.skip(missing)
    server = MilvusServer(tmp_path_factory.mktemp("milvus"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def milvus(milvus_server):
    """The same, with nothing in it."""
    milvus_server.clear()
    return milvus_server


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def collections(folder):
    opened = EmbeddedEngine(folder)
    yield opened
    opened.close()


@pytest.fixture
def disk(tmp_path):
    """Mounts a disk of so many bytes on a folder; skips the test where this user cannot."""
    with ExitStack() as until_the_end:

        def mount(size, folder=tmp_path / "disk"):
            try:
                return until_the_end.enter_context(mounted(folder, size))
            except CannotMount as error:
                pytest.skip(str(error))

        yield mount


@pytest.fixture
def fill():
    """Upserts `{id: (vector, metadata)}`; the text of each document names its id."""

    def fill(collection, entries):
        documents = [Document(id_, f"text of {id_}", metadata) for id_, (_, metadata) in entries.items()]
        vectors = np.array([vector for vector, _ in entries.values()], np.float32)
        return collection.upsert(documents, vectors)

    return fill


@pytest.fixture
def start():
    """Starts a Python program in another process; whatever is left of them is killed at the end."""
    started = []

    def start(program: str, *arguments: object) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", program, *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *filter(None, sys.path)])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
