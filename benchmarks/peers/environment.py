"""Where a peer is installed."""

from __future__ import annotations

import os
from pathlib import Path


class MissingPeer(Exception):
    """A peer cannot be measured here; the message says what to do."""


def environment(variable: str, program: str) -> Path:
    """The `bin` folder of the virtual environment that a variable names.

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
