"""Where the data sets are."""

from __future__ import annotations

import os
from pathlib import Path


class MissingData(SystemExit):
    """The data sets are not there; as the end of a script it is its message."""


def folder() -> Path:
    """The folder with `stsb-en/` and `cranfield/`: `MILLPOND_DATA`, or `shared/data` beside the project.

    Raises:
        MissingData: it is not there.

    """
    found = Path(os.environ.get("MILLPOND_DATA", Path(__file__).parents[3] / "shared" / "data"))
    if not (found / "stsb-en" / "test.csv").exists():
        raise MissingData(f"no data in {found}; set MILLPOND_DATA to a folder with stsb-en/ and cranfield/")
    return found
