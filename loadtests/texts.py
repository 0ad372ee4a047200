"""The texts that users send, as a file: `python -m loadtests.texts FILE`.

The reader of data sets imports torch, and users hang in a Locust process that has imported it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

from benchmarks.texts import cranfield, sentences, sts

MOST_SENTENCES: Final = 512
"""Few enough that each is sent several times in a short run, in other company each time."""


def write(path: Path) -> None:
    """Write different sentences of STS-B, and the questions and documents of Cranfield."""
    data = cranfield()
    texts = {
        "sentences": list(dict.fromkeys(sentences(sts())))[:MOST_SENTENCES],
        "questions": list(data.queries.values()),
        "documents": dict(data.documents),
    }
    path.write_text(json.dumps(texts), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
