"""Other servers, each in an environment of its own that a variable names.

Infinity: `MILLPOND_INFINITY`, an environment with `infinity-emb[server,torch,optimum]`.
txtai: `MILLPOND_TXTAI`, an environment with `txtai[api]`.
Where a variable is not set, its rows are left out and the results say so.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.support.servers import NotStarted


class MissingPeer(NotStarted):
    """A peer cannot be measured here; the message says what to do."""


def environment(variable: str, program: str) -> Path:
    """Give the `bin` folder of the virtual environment that a variable names.

    Raises:
        MissingPeer: it is not set, or `program` is not there.

    """
    value = os.environ.get(variable)
    if not value:
        raise MissingPeer(f"{variable} is not set; give it the virtual environment that has {program}.")
    found = Path(value).expanduser().absolute() / "bin"
    if not (found / program).exists():
        raise MissingPeer(f"{variable} is {value!r}, and there is no bin/{program} in it.")
    return found


def versions_in(python: Path, packages: Sequence[str]) -> str:
    """Give the versions of packages in another environment, such as `infinity-emb 0.0.78, torch 2.13.0`."""
    program = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]), sep='\\n')"
    found = subprocess.run([python, "-c", program, *packages], check=True, capture_output=True, text=True)
    return ", ".join(f"{name} {each}" for name, each in zip(packages, found.stdout.split(), strict=True))
