"""Try the whole OpenAPI document on real servers, without keys and with them: `python -m tests.contract`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.contract.trial import LOCKED, OPEN, served, try_out


def main() -> int:
    """Run the trials and return the exit status: that of Schemathesis."""
    parser = argparse.ArgumentParser(prog="python -m tests.contract", description=__doc__)
    parser.add_argument("--examples", type=int, default=300, help="generated requests an operation and phase")
    arguments = parser.parse_args()
    status = 0
    for access in (OPEN, LOCKED):
        print(f"\n===== {access.name} =====", flush=True)
        with tempfile.TemporaryDirectory() as folder, served(access, Path(folder)) as server:
            status |= try_out(server, access, arguments.examples).returncode
    return status


if __name__ == "__main__":
    sys.exit(main())
