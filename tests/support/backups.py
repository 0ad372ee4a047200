"""Back up a store beside the service that writes to it, again and again, and look for what cannot be in a backup.

Some backups are killed. What a finished one holds of a writer must be what the store held of it at one moment between
the beginning of the backup and its end, which the `History` of that writer tells.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from service.store.backup import CHECKSUM
from service.store.store import FILE, Store
from tests.support.forks import Forks

Place = tuple[str, str]
"""A collection, and the id of a document."""
Held = tuple[str, int]
"""The text of a document, and its version in metadata."""
_MOST_SECONDS: Final = 60.0
"""For a backup, or for what puts it back."""


@dataclass
class Backed:
    """How many backups were finished, and how many killed before."""

    finished: int = 0
    killed: int = 0


class _Request(NamedTuple):
    begun: float
    ended: float | None
    """None while it is under way."""
    states: Mapping[Place, Held | None]


class History:
    """What one writer has asked for, a request after another: what a store may have held of it, and when.

    Times are those of `time.monotonic`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[Place, Held] = {}
        self._requests: list[_Request] = []

    def begin(self, states: Mapping[Place, Held | None]) -> None:
        """Note what documents become by a request that is about to be sent; None where they are deleted."""
        with self._lock:
            self._requests.append(_Request(time.monotonic(), None, states))

    def end(self, *, done: bool = True) -> None:
        """Note that the request that is under way, if any, has been done, or never will be."""
        with self._lock:
            if self._requests and (last := self._requests[-1]).ended is None:
                self._requests[-1:] = [last._replace(ended=time.monotonic())] if done else []

    def forget(self) -> None:
        """Forget what was before now."""
        with self._lock:
            while self._requests and self._requests[0].ended is not None:
                _apply(self._held, self._requests.pop(0))

    def since(self, began: float) -> list[dict[Place, Held]]:
        """Return all that a store may have held since then, one after the other."""
        with self._lock:
            held, moments = self._held.copy(), []
            for request in self._requests:
                if request.ended is None or request.ended >= began:
                    moments.append(held.copy())
                _apply(held, request)
            return [*moments, held]


def _apply(held: dict[Place, Held], request: _Request) -> None:
    for place, state in request.states.items():
        if state is None:
            held.pop(place, None)
        else:
            held[place] = state


class Backups:
    """Backups of a store by processes of their own, from `begin` to the end of the `with` block; the last is whole.

    Args:
        forks: to start the processes.
        store: the folder that is served.
        folder: for the backups, which are deleted again, but not one in which something is wrong.
        collections: that only writers change.
        histories: of each writer, by what the ids of its documents begin with before a slash.
        chance: when to begin and to kill.
        tally: what is counted in.
        faults: what is added to. Where there are any, none is looked for any more.
    """

    def __init__(
        self,
        forks: Forks,
        store: Path,
        folder: Path,
        collections: Collection[str],
        histories: Mapping[str, History],
        chance: random.Random,
        tally: Backed,
        faults: list[str],
    ) -> None:
        self._forks, self._store, self._collections, self._histories = forks, store, collections, histories
        self._random, self._tally, self._faults = chance, tally, faults
        self._backup, self._restored, self._log = folder / "backup" / "latest", folder / "restored", folder / "log"
        self._took = 0.0
        self._begun, self._ended = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run)
        folder.mkdir()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._ended.set()
        self._begun.set()
        self._thread.join()

    def begin(self) -> None:
        """Begin, now that there is a store."""
        self._begun.set()

    def _run(self) -> None:
        self._begun.wait()
        try:
            while not self._ended.is_set() and not self._faults:
                self._back_up(kill=self._took > 0 and self._random.random() < 0.4)
                self._ended.wait(self._random.uniform(0, 1))
            if not self._faults:
                self._back_up(kill=False)
        except Exception as error:
            self._faults.append(f"a backup cannot be checked: {error!r}")

    def _back_up(self, *, kill: bool) -> None:
        """Make a backup and check it; where it is to be killed, it may be whole before."""
        for history in self._histories.values():
            history.forget()
        began = time.monotonic()
        most = self._random.uniform(0, 1.2 * self._took) if kill else _MOST_SECONDS
        ended = self._millpond(["backup", str(self._backup), "--store", str(self._store)], most)
        if self._backup.exists():
            self._tally.finished += 1
            self._took = time.monotonic() - began
            self._check(began)
        elif kill and not ended:
            self._tally.killed += 1
        else:
            self._faults.append(f"no backup: {self._log.read_text(errors='replace')}")

    def _check(self, began: float) -> None:
        moments = {number: history.since(began) for number, history in self._histories.items()}
        if (there := sorted(entry.name for entry in self._backup.iterdir())) != [FILE, CHECKSUM]:
            self._faults.append(f"the folder of a backup holds {there}")
        self._millpond(["restore", str(self._backup), "--store", str(self._restored)], _MOST_SECONDS)
        if not (self._restored / FILE).exists():
            self._faults.append(f"not restored: {self._log.read_text(errors='replace')}")
            return
        self._faults += [f"a backup: {fault}" for fault in file_faults(self._restored)]
        found = self._documents()
        for number in {place[1].partition("/")[0] for place in found} | moments.keys():
            of_writer = {place: held for place, held in found.items() if place[1].partition("/")[0] == number}
            if of_writer not in (possible := moments.get(number, [{}])):
                nearest = min((of_writer.items() ^ held.items() for held in possible), key=len)
                self._faults.append(
                    f"a backup holds of writer {number} what the store has not at any of {len(possible)} moments, "
                    f"the nearest but for {sorted(nearest)}"
                )
        if not self._faults:
            shutil.rmtree(self._backup)
            shutil.rmtree(self._restored)
            if left := sorted(entry.name for entry in self._backup.parent.iterdir()):
                self._faults.append(f"beside a backup there is {left}")

    def _documents(self) -> dict[Place, Held]:
        """Return what the store that was restored holds."""
        with closing(Store(self._restored)) as store:
            return {
                (row.name, document.id): (document.text, document.metadata["version"])
                for row in store.collections()
                if row.name in self._collections
                for document in store.documents(row.key)
            }

    def _millpond(self, arguments: Sequence[str], most: float) -> bool:
        """Run a command, kill it after so many seconds, and return whether it ended before."""
        end = time.monotonic() + most
        process = self._forks.started([*arguments], self._log)
        while process.poll() is None:
            if time.monotonic() > end:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return False
            time.sleep(0.001)
        return True


def file_faults(store: Path) -> list[str]:
    """Return what is wrong with the file of a store that is not in use, and with its full-text tables."""
    faults = []
    with closing(sqlite3.connect(store / FILE)) as connection:
        found = connection.execute("PRAGMA integrity_check").fetchall()
        found += connection.execute("PRAGMA foreign_key_check").fetchall()
        found += connection.execute("SELECT * FROM unindexed").fetchall()
        if found != [("ok",)]:
            faults.append(f"the store's file: {found}")
        for (key,) in connection.execute("SELECT collection FROM keywords WHERE current").fetchall():
            table = f"keywords_{key}"
            try:
                connection.execute(f"INSERT INTO {table} ({table}, rank) VALUES ('integrity-check', 1)")
            except sqlite3.Error as error:
                faults.append(f"{table}: {error}")
    return faults
