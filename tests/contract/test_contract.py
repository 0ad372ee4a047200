"""The service does what its OpenAPI document says, whatever it is sent: a short run of `python -m tests.contract`."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.contract.trial import LOCKED, OPEN, Access, served, try_out

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("access", [OPEN, LOCKED], ids=lambda access: access.name)
def test_generated_requests(access: Access, tmp_path: Path) -> None:
    pytest.importorskip("schemathesis")
    with served(access, tmp_path) as server:
        done = try_out(server, access, 5, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout[-8000:]
    answered = re.search(r"Answered: (\d+) \((.*)\)", done.stdout)
    assert answered is not None and int(answered[1]) > 1000
    assert all(phase in answered[2] for phase in ("examples", "coverage", "fuzzing", "stateful"))
    assert not re.search(r"x 5\d\d", done.stdout)
