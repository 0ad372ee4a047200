"""`millpond embed-dataset --ray`: on a cluster of three machines, of which one dies; and a driver that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

import pytest

from tests.support import checkpoints

from .conftest import COMMAND, ROOT

pytest.importorskip("ray.data", reason="Ray Data is not installed: pip install 'millpond[ray]'", exc_type=ImportError)
cluster_utils = pytest.importorskip("ray.cluster_utils")
parquet = pytest.importorskip("pyarrow.parquet")
arrow = pytest.importorskip("pyarrow")

pytestmark = pytest.mark.peers

ROWS, BLOCK_ROWS, BLOCKS = 30_000, 500, 60
_SMALL = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


class Cluster:
    """Three machines of one core each, all on this one."""

    def __init__(self):
        self._cluster = cluster_utils.Cluster(
            initialize_head=True, head_node_args={"include_dashboard": False, **_SMALL}
        )
        self._others = [self._cluster.add_node(**_SMALL) for _ in range(2)]
        self.address = self._cluster.address

    def kill_a_machine(self):
        """End the raylet of one that is not the head; its workers die of that."""
        os.kill(self._others.pop().all_processes["raylet"][0].process.pid, signal.SIGKILL)

    def shutdown(self):
        self._cluster.shutdown()


@pytest.fixture
def cluster(monkeypatch, environment):
    monkeypatch.setenv("PYTHONPATH", environment["PYTHONPATH"])  # which the workers get from here
    started = Cluster()
    yield started
    started.shutdown()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return checkpoints.plain_bert(tmp_path_factory.mktemp("model") / "bert")


class Embedding:
    """The command over an input of its own."""

    def __init__(self, folder, model, environment):
        self._source, self.out = folder / "in.jsonl", folder / "out"
        with self._source.open("w") as file:
            for number in range(ROWS):
                text = f"The wheel of mill {number} turns when water flows over it."
                file.write(json.dumps({"id": f"d{number}", "text": text}) + "\n")
        self._named = ["--model", str(model), "--block-rows", str(BLOCK_ROWS)]
        runtime = {"MILLPOND_RUNTIME__BACKEND": "torch", "MILLPOND_RUNTIME__PRECISION": "fp32"}
        self._env = environment | runtime

    def begin(self, address, *options):
        """Start it, and wait until a quarter more is written than before."""
        before = len(self.times())
        command = [*COMMAND, "embed-dataset", str(self._source), str(self.out), *self._named, *options]
        process = subprocess.Popen(
            [*command, "--ray", address],
            cwd=ROOT,
            env=self._env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        while process.poll() is None and len(self.times()) < before + BLOCKS // 4:
            time.sleep(0.02)
        return process

    def times(self):
        """When each block was written, by the name of its file."""
        return {file.name: file.stat().st_mtime_ns for file in self.out.glob("block-*.parquet")}

    def require_whole(self, process):
        """Wait for its end, and see that each row is there once, in order."""
        said = process.communicate(timeout=300)[0]
        assert process.returncode == 0 and f"{ROWS} rows in {BLOCKS} blocks" in said, said
        found = arrow.concat_tables(parquet.read_table(file) for file in sorted(self.out.glob("block-*.parquet")))
        assert found["id"].to_pylist() == [f"d{number}" for number in range(ROWS)]
        assert not list(self.out.glob(".*.partial"))


@pytest.fixture
def embedding(tmp_path, model, environment):
    return Embedding(tmp_path, model, environment)


def test_a_machine_that_dies_loses_nothing(cluster, embedding):
    process = embedding.begin(cluster.address)
    cluster.kill_a_machine()
    before = embedding.times()
    assert len(before) < BLOCKS
    embedding.require_whole(process)
    assert before.items() <= embedding.times().items()


def test_a_driver_that_is_killed_or_interrupted_goes_on(cluster, embedding):
    killed = embedding.begin(cluster.address)
    killed.kill()
    killed.communicate()
    interrupted = embedding.begin(cluster.address)
    interrupted.send_signal(signal.SIGINT)
    said = interrupted.communicate(timeout=120)[0]
    assert interrupted.returncode in (130, -signal.SIGINT), said
    before = embedding.times()
    assert f"Interrupted: {len(before)} of {BLOCKS} blocks are written to {embedding.out}. Run the same" in said
    assert BLOCKS // 2 <= len(before) < BLOCKS
    embedding.require_whole(embedding.begin(cluster.address))
    assert before.items() <= embedding.times().items()


def test_what_goes_wrong_on_a_machine_is_told_in_a_sentence(cluster, embedding, tmp_path):
    with (tmp_path / "in.jsonl").open("a") as file:
        file.write('{"id": "last", "text": ""}\n')
    failed = embedding.begin(cluster.address)
    said = failed.communicate(timeout=120)[0]
    assert failed.returncode == 1, said
    assert f"in.jsonl: line {ROWS + 1}: has no text. Give --on-error skip" in said and "Traceback" not in said
    skipping = embedding.begin(cluster.address, "--on-error", "skip", "--workers", "1")
    said = skipping.communicate(timeout=120)[0]
    assert skipping.returncode == 1 and "1 rows are left out" in said, said
    assert f"{ROWS} rows in {BLOCKS + 1} blocks" in said
    next(embedding.out.glob("block-*.parquet")).unlink()
    greedy = embedding.begin(cluster.address, "--on-error", "skip", "--worker-cpus", "64")
    said = greedy.communicate(timeout=120)[0]
    assert (
        greedy.returncode == 1 and "has no machine with 64 free for a worker: its machines have 1, 1, 1 CPUs" in said
    )


def test_no_cluster(embedding):
    process = embedding.begin("127.0.0.1:1")
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 1 and "--ray 127.0.0.1:1: no Ray cluster answers" in said, said
