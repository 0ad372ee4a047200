"""Services that start at once: forks of a process that has imported all that a service needs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.support.servers import ROOT, Launcher, Process, free_port

_PAUSE: Final = 0.005


class Forks:
    """The process that services are forks of, within the `with` block.

    Their graphs are built of a few dozen vectors already, so that snapshots are written all the time.
    """

    def __enter__(self) -> Self:
        self._parent = subprocess.Popen(
            [sys.executable, "-m", "tests.support.forks"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._starting = threading.Lock()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._parent.communicate()

    def started(self, arguments: list[str], log: Path) -> Process:
        """Start `millpond` with arguments, which writes to a log, and return its process; threads may start some."""
        assert self._parent.stdin is not None and self._parent.stdout is not None
        with self._starting:
            self._parent.stdin.write(json.dumps({"arguments": arguments, "log": str(log)}) + "\n")
            self._parent.stdin.flush()
            return _Fork(int(self._parent.stdout.readline()))


class Forked(Launcher):
    """`millpond serve` as a fork; otherwise as `Server`."""

    def __init__(self, forks: Forks, config: Path, store: Path) -> None:
        port = free_port()
        self._forks = forks
        self._arguments = ["serve", "--port", str(port), "--config", str(config), "--store", str(store)]
        super().__init__([], port, store.parent / f"{store.name}.log", ready="/ready")

    def _begun(self) -> Process:
        return self._forks.started(self._arguments, self.log)


class _Fork:
    """A process of which another is the parent, so that all that is known is whether it has ended."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def poll(self) -> int | None:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return -1
        return None

    def wait(self, timeout: float | None = None) -> int:
        end = None if timeout is None else time.monotonic() + timeout
        while (status := self.poll()) is None:
            if end is not None and time.monotonic() > end:
                raise subprocess.TimeoutExpired("millpond", timeout or 0)
            time.sleep(_PAUSE)
        return status

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def send_signal(self, sig: int, /) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, sig)


def _serve_forks() -> None:
    """Fork a service for each line of standard input; each prints its process id."""
    import uvicorn  # noqa: F401 - what follows is imported before the forks, so that none of them has to

    import service.api
    import service.cli
    import service.deployment
    import service.encoder.runtimes.torch
    from service.index.hnsw import HnswIndex

    HnswIndex.exact_below, HnswIndex.most_tail = 30, 20
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system forgets them when they end
    for line in sys.stdin:
        asked = json.loads(line)
        if os.fork():
            continue
        os.setsid()
        os.write(1, b"%d\n" % os.getpid())  # a session of its own by now, which can be killed as one
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        sys.argv = ["millpond", *asked["arguments"]]
        try:
            service.cli.main()
        finally:
            sys.stderr.flush()
            os._exit(0)


if __name__ == "__main__":
    _serve_forks()
