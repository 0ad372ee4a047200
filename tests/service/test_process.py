"""What is changed for the whole process."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = """
import gc
from service.process import freeze_and_trim, prepare_process
prepare_process()
from openvino.tools.ovc import telemetry_utils
import nncf.telemetry.wrapper as nncf
print(telemetry_utils.tm.__name__, isinstance(nncf.telemetry, nncf.NNCFTelemetryStub))
freeze_and_trim()
print(gc.get_freeze_count() > 1000)
"""


@pytest.mark.slow
@pytest.mark.skipif(not (find_spec("openvino") and find_spec("nncf")), reason="the extra 'openvino' is not installed")
def test_nothing_is_reported_and_loaded_objects_are_frozen():
    """In a process of its own: this one is prepared already, and NNCF reports nothing from tests."""
    done = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["openvino.tools.ovc.telemetry_stub", "True", "True"]


THREADS = """
import os, sys
imported_first = sys.argv[1] == "first"
if imported_first:
    import torch
from service.process import prepare_process
prepare_process()
prepare_process(1)
import faiss, torch
from threading import Thread
counts = [torch.get_num_threads()]
thread = Thread(target=lambda: counts.append(torch.get_num_threads()))
thread.start(); thread.join()
print(*counts, os.environ["OMP_NUM_THREADS"], os.environ["RAYON_NUM_THREADS"])
"""


def threads(when: str, **chosen: str) -> list[str]:
    env = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")} | chosen
    command = [sys.executable, "-c", THREADS, when]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.slow
@pytest.mark.parametrize("when", ["first", "later"])
def test_libraries_start_no_more_threads_than_there_are_cores_to_use(when):
    assert threads(when) == ["1", "1", "1", "1"]


@pytest.mark.slow
def test_what_the_user_has_set_is_left_alone():
    assert threads("first", OMP_NUM_THREADS="2") == ["2", "2", "2", "1"]
    assert threads("later", RAYON_NUM_THREADS="3") == ["1", "1", "1", "3"]


ARENAS = """
import ctypes
from threading import Barrier, Thread
from service.process import prepare_process
prepare_process()
libc, together = ctypes.CDLL(None), Barrier(6)
libc.malloc.restype = ctypes.c_void_p
def allocate():
    together.wait()
    assert libc.malloc(1000)
    together.wait()
threads = [Thread(target=allocate) for _ in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
@pytest.mark.parametrize(("chosen", "arenas"), [({}, 2), ({"MALLOC_ARENA_MAX": "5"}, 5)])
def test_threads_share_arenas_unless_the_user_says_otherwise(chosen, arenas):
    env = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")} | chosen
    done = subprocess.run(
        [sys.executable, "-c", ARENAS], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.count("<heap nr=") == arenas
