"""Loops over texts without a server, to compare with; each round is timed in a process of its own.

    python -m benchmarks.loop FOLDER                # sentence-transformers' `encode`, its defaults
    python -m benchmarks.loop FOLDER FILE.onnx      # its ONNX backend, in an environment that has optimum

`benchmarks.bare` has the others.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

_ROOT: Final = Path(__file__).parents[1]

Plan = Callable[[list[str]], Callable[[], object]]
"""From texts to what is timed; the preparation is not."""


def seconds(module: str, *words: str | Path, texts: Sequence[str], python: str | Path = sys.executable) -> float:
    """Run a module that calls `time_plan`, with a command line and an interpreter; gives the seconds of a round."""
    command: list[str | Path] = [python, "-m", module, *words]
    said = subprocess.run(command, input=json.dumps(texts), stdout=subprocess.PIPE, text=True, check=True, cwd=_ROOT)
    return float(said.stdout.splitlines()[-1])


def time_plan(plan: Plan) -> None:
    """Read texts from stdin, plan them, and print the seconds of a second round."""
    run = plan(json.load(sys.stdin))
    run()  # warm up
    start = time.perf_counter()
    run()
    print(time.perf_counter() - start)


def sentence_transformers(folder: str, file: str | None = None) -> None:
    """Time sentence-transformers as a library, over all texts at once."""
    from sentence_transformers import SentenceTransformer

    onnx: dict[str, Any] = {"backend": "onnx", "model_kwargs": {"file_name": file}} if file else {}
    model = SentenceTransformer(folder, device="cpu", **onnx)
    time_plan(lambda texts: lambda: model.encode(texts))


if __name__ == "__main__":
    sentence_transformers(*sys.argv[1:])
