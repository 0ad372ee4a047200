"""The service does what its OpenAPI document says, whatever it is sent: a short run of `python -m tests.contract`."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.contract.trial import LOCKED, OPEN, PHASES, Access, served, try_out

pytestmark = pytest.mark.slow


# Most requests are those of "coverage", for which a key hardly matters.
@pytest.mark.parametrize(
    ("access", "phases", "least"),
    [(OPEN, PHASES, 1000), (LOCKED, ("examples", "fuzzing", "stateful"), 200)],
    ids=[OPEN.name, LOCKED.name],
)
def test_generated_requests(access: Access, phases: Sequence[str], least: int, tmp_path: Path) -> None:
    pytest.importorskip("schemathesis")
    with served(access, tmp_path) as server:
        done = try_out(server, access, 5, phases=phases, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout[-8000:]
    answered = re.search(r"Answered: (\d+) \((.*)\)", done.stdout)
    assert answered is not None and int(answered[1]) > least
    assert all(phase in answered[2] for phase in phases)
    assert not re.search(r"x 5\d\d", done.stdout)
