"""What `millpond cluster serve` says where it cannot: one sentence each, before anything is loaded."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys

import pytest
import yaml

from tests.support.applications import EXPORTED
from tests.support.servers import ROOT, environment_without_settings

MODELS = {"default": {"encoder": str(EXPORTED)}}
RAY = importlib.util.find_spec("ray") is not None
with_ray = [
    pytest.mark.peers,
    pytest.mark.skipif(not RAY, reason="Ray Serve is not installed: pip install 'millpond[ray]'"),
]


def told(tmp_path, config, *options, **variables):
    """Run the command; return its exit status and what it says."""
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "service", "cluster", "serve", "--config", path, *options]
    env = environment_without_settings() | {"PYTHONPATH": str(ROOT), "COLUMNS": "1000"} | variables
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=180, stdin=subprocess.DEVNULL)
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return done.returncode, lines[0]


@pytest.mark.slow
@pytest.mark.skipif(RAY, reason="Ray is installed")
def test_without_ray_it_says_what_to_install(tmp_path):
    status, line = told(tmp_path, {"models": MODELS})
    assert status == 2 and "`pip install 'millpond[ray]'`" in line


@pytest.mark.parametrize(
    ("config", "options", "words"),
    [
        pytest.param({"store": {"path": "data"}}, [], ["store:", "replicas cannot share"], marks=with_ray),
        pytest.param({"cluster": {"replicas": 0}}, [], ["cluster.replicas", "greater than or equal to 1"]),
        pytest.param(
            {}, ["--address", "127.0.0.1:1"], ["no Ray cluster answers", "ray start --head"], marks=with_ray
        ),
        pytest.param(
            {"models": {"default": {"encoder": "/nowhere/at/all"}}}, [], ["there is no such folder"], marks=with_ray
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(tmp_path, config, options, words):
    status, line = told(tmp_path, {"models": MODELS} | config, "--port", "0", *options)
    assert status in (1, 2)
    for word in words:
        assert word in line


@pytest.mark.parametrize("_", [pytest.param(None, marks=with_ray)])
def test_a_port_in_use_is_said_before_ray_is_started(tmp_path, _):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, line = told(tmp_path, {"models": MODELS}, "--port", str(port))
    assert status == 2 and f"cannot serve at 127.0.0.1, port {port}" in line


@pytest.mark.parametrize("_", [pytest.param(None, marks=with_ray)])
def test_a_cluster_that_does_not_start_here_is_said_to_be_of_this_machine(tmp_path, _):
    folder = tmp_path / ("long" * 30)  # too long for the names of sockets
    status, line = told(tmp_path, {"models": MODELS}, "--port", "0", RAY_TMPDIR=str(folder))
    assert status == 1 and "Ray does not start a cluster on this machine (" in line and "--address" not in line
