"""sentence-transformers as a library, to compare with; each round is timed in a process of its own.

python -m benchmarks.loop FOLDER                # `encode`, its defaults
python -m benchmarks.loop FOLDER FILE.onnx      # its ONNX backend, in an environment that has optimum
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

_ROOT: Final = Path(__file__).parents[1]


def seconds(python: str | Path, *words: str | Path, texts: Sequence[str]) -> float:
    """Run this module with an interpreter and a command line; gives the seconds of a second pass over texts."""
    command: list[str | Path] = [python, "-m", "benchmarks.loop", *words]
    said = subprocess.run(command, input=json.dumps(texts), stdout=subprocess.PIPE, text=True, check=True, cwd=_ROOT)
    return float(said.stdout.splitlines()[-1])


def main(folder: str, file: str | None = None) -> None:
    """Encode the texts on stdin twice, all at once, and print the seconds of the second time."""
    from sentence_transformers import SentenceTransformer

    onnx: dict[str, Any] = {"backend": "onnx", "model_kwargs": {"file_name": file}} if file else {}
    model = SentenceTransformer(folder, device="cpu", **onnx)
    texts = json.load(sys.stdin)
    for _ in range(2):
        start = time.perf_counter()
        model.encode(texts)
    print(time.perf_counter() - start)


if __name__ == "__main__":
    main(*sys.argv[1:])
