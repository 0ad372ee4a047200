"""What is changed for the whole process."""

from __future__ import annotations

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


@pytest.mark.skipif(not (find_spec("openvino") and find_spec("nncf")), reason="the extra 'openvino' is not installed")
def test_nothing_is_reported_and_loaded_objects_are_frozen():
    """In a process of its own: this one is prepared already, and NNCF reports nothing from tests."""
    done = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["openvino.tools.ovc.telemetry_stub", "True", "True"]
