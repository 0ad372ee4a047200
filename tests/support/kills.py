"""Kill a service at random moments while clients write and search, and look for what was lost.

`python -m tests.support.kills --kills 500` prints its seed, and what it found. Each writer has ids of its own, and so
knows what each of them must hold: what was acknowledged last, or what was under way when the service died. What was
replaced or deleted is known too, and must not be found any more: by vectors, by words, or by filters.

Meanwhile other processes back the store up, whether it is served or not, and some of them are killed too; see
`tests.support.backups`.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any, Final, NamedTuple

import httpx
import yaml

from tests.support.backups import Backed, Backups, History, file_faults
from tests.support.checkpoints import plain_bert
from tests.support.forks import Forked, Forks
from tests.support.servers import NotStarted

WRITERS: Final = 3
IDS: Final = 30
"""Ids of a writer."""
COLLECTIONS: Final[dict[str, dict[str, Any]]] = {
    "whole": {"index": "hnsw"},
    "spans": {"index": "hnsw", "chunking": {"by": "sentence", "mode": "early"}},
    "exact": {"index": "flat"},
}
_SENTENCES: Final = 2
"""Spans of each text."""
_COPY: Final = "copy"
_WORDS: Final = ("mill", "pond", "wheel", "water", "grain", "evening", "miller", "bridge", "river", "stone", "sack")
_MOST_GONE: Final = 200
"""Texts of a writer in a collection that must not be found, of which the last are looked for."""


class Content(NamedTuple):
    """What a document holds: its text, its word that no other text has, and its version in metadata."""

    text: str
    word: str
    version: int


State = Content | None
"""What a document is; None where it is absent."""


@dataclass
class Known:
    """What is known of a document: what it is, or what it may be since the service died."""

    state: State = None
    perhaps: list[State] = field(default_factory=list)


@dataclass
class Tally:
    """What happened, and what went wrong."""

    kills: int = 0
    during_start: int = 0
    acknowledged: int = 0
    searches: int = 0
    reindexes: int = 0
    compactions: int = 0
    copies: int = 0
    snapshots: int = 0
    backups: Backed = field(default_factory=Backed)
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.kills} kills ({self.during_start} during a start), {self.acknowledged} writes acknowledged, "
            f"{self.searches} searches, {self.reindexes} reindexes begun, {self.compactions} compactions, "
            f"{self.copies} copies, {self.snapshots} snapshots seen, "
            f"{self.backups.finished} backups and {self.backups.killed} killed, {len(self.faults)} faults"
        )


class Kills:
    """A service, its clients and what they know.

    Args:
        folder: for the model, the config, the store and the logs.
        seed: of every choice; threads still race, so a run does not repeat to the letter.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.tally = Tally()
        self._random = random.Random(seed)
        self._store = folder / "store"
        self._config = folder / "config.yaml"
        runtime = {"backend": "torch", "precision": "fp32", "threads": 1, "cache": str(folder / "cache")}
        model = {"encoder": str(plain_bert(folder / "model")), "pooling": "mean"}
        self._config.write_text(yaml.safe_dump({"models": {"default": model}, "runtime": runtime}))
        self._writers = [_Writer(number, random.Random(f"{seed}/{number}"), self.tally) for number in range(WRITERS)]

    def run(self, kills: int) -> Tally:
        """Kill the service so many times, check after each, and return what was found."""
        with Forks() as forks, self._backed_up(forks) as backups:
            try:
                while self.tally.kills < kills and not self.tally.faults:
                    if self._random.random() < 0.1:
                        self._kill_during_start(forks)
                    with Forked(forks, self._config, self._store) as server:
                        self._check(server)
                        backups.begin()
                        self._load_and_kill(server)
                    self.tally.kills += 1
                    print(f"\r{self.tally}", end="", file=sys.stderr, flush=True)
                with Forked(forks, self._config, self._store) as server:
                    self._check(server)
            except NotStarted as error:
                self.tally.faults.append(f"it does not start: {error}")
            except httpx.HTTPStatusError as error:
                self.tally.faults.append(f"{error.request.method} {error.request.url}: {error.response.text}")
            except httpx.TransportError as error:
                self.tally.faults.append(f"it ended while it was checked: {error!r}")
        self.tally.faults += file_faults(self._store)
        return self.tally

    def _backed_up(self, forks: Forks) -> Backups:
        histories = {str(writer.number): writer.history for writer in self._writers}
        chance = random.Random(self._random.random())
        folder = self._store.with_name("backups")
        tally = self.tally
        return Backups(forks, self._store, folder, COLLECTIONS, histories, chance, tally.backups, tally.faults)

    def _kill_during_start(self, forks: Forks) -> None:
        server = Forked(forks, self._config, self._store)

        def kill() -> None:
            while not hasattr(server, "process"):  # the first fork waits for all imports
                time.sleep(0.005)
            server.kill()

        killer = threading.Timer(self._random.uniform(0.02, 0.6), kill)
        killer.start()
        try:
            with server:
                killer.join()
        except NotStarted:
            killer.join()
        self.tally.during_start += 1
        self.tally.kills += 1

    def _load_and_kill(self, server: Forked) -> None:
        with ThreadPoolExecutor(WRITERS + 1) as pool:
            running = [pool.submit(writer.run, server.url) for writer in self._writers]
            running.append(pool.submit(self._maintain, server.url, self._random.random()))
            time.sleep(self._random.uniform(0.05, 1.5))
            if server.process.poll() is not None:
                self.tally.faults.append(f"it ended before it was killed: {server.last_words()}")
            server.kill()
            for each in running:
                each.result(timeout=120)

    def _maintain(self, url: str, seed: float) -> None:
        """Reindex, compact and copy now and then, and give a reindex up now and then."""
        chance = random.Random(seed)

        def asked(method: str, path: str, **body: Any) -> bool:
            answer = http.request(method, path, **body)
            if answer.status_code >= 500:
                self.tally.faults.append(f"{method} {path}: {answer.status_code} {answer.text}")
            return answer.is_success

        with httpx.Client(base_url=url, timeout=60, trust_env=False) as http:
            try:
                while True:
                    name = chance.choice([*COLLECTIONS])
                    match chance.choice(["reindex", "reindex", "compact", "copy"]):
                        case "reindex":
                            path = f"/collections/{name}/reindex"
                            self.tally.reindexes += asked("POST", path, json={"force": True})
                            time.sleep(chance.uniform(0, 0.3))
                            if chance.random() < 0.3:
                                asked("DELETE", path)
                        case "compact":
                            self.tally.compactions += asked("POST", "/compact")
                        case "copy":
                            asked("DELETE", f"/collections/{_COPY}")
                            self.tally.copies += asked("POST", f"/collections/{name}/copy", json={"to": _COPY})
                    time.sleep(chance.uniform(0, 0.1))
            except httpx.TransportError:
                return

    def _check(self, server: Forked) -> None:
        """Compare what the service holds, by each of the ways to ask for it, with what is known."""
        http = server.http
        for collection, definition in COLLECTIONS.items():
            http.put(f"/collections/{collection}", json=definition).raise_for_status()
            held = {
                document["id"]: document
                for document in _asked(http, f"{collection}/documents/list", limit=10_000)["documents"]
            }
            for writer in self._writers:
                writer.settle(collection, held)
            if unknown := [
                document for document in held if document.partition("/")[0] not in map(str, range(WRITERS))
            ]:
                self.tally.faults.append(f"{collection}: nobody stored {unknown}")
            described = http.get(f"/collections/{collection}").json()
            spans = described.get("chunks", described["count"] * _SENTENCES)
            if (described["count"], spans) != (len(held), len(held) * _SENTENCES):
                self.tally.faults.append(f"{collection}: {len(held)} documents are listed, and it is {described}")
            self.tally.snapshots += described["index_state"]["uses"] == "hnsw"
            known = {
                document: state for writer in self._writers for document, state in writer.known(collection).items()
            }
            for writer in self._writers:
                self._find(http, collection, writer, known)
        if http.get(f"/collections/{_COPY}").is_success:
            listed = _asked(http, f"{_COPY}/documents/list", limit=10_000)["documents"]
            if len(listed) != _asked(http, f"{_COPY}/documents/count")["count"]:
                self.tally.faults.append(f"{_COPY}: {len(listed)} documents are listed, and more or fewer counted")
        log = server.log.read_text(errors="replace")
        if "Traceback" in log or "cannot be used" in log:
            self.tally.faults.append(f"the log of a start: {log[-3000:]}")

    def _find(self, http: httpx.Client, collection: str, writer: _Writer, known: dict[str, State]) -> None:
        """Look for each document of a writer, and for what it replaced or deleted; `known` are those of all."""
        fault = self.tally.faults.append
        ids = [*writer.known(collection)]
        by_id = {document: state for document in ids if (state := known[document]) is not None}
        answer = _asked(http, f"{collection}/documents/get", ids=ids)
        if {document["id"] for document in answer["documents"]} != by_id.keys():
            fault(f"{collection}: of {ids}, {answer['missing']} are missing; known are {by_id}")
        for mode in ("dense", "keyword"):
            sought = [_query(collection, state) for state in by_id.values()]
            for (document, state), hits in zip(by_id.items(), _searched(http, collection, sought, mode), strict=True):
                if (document, state.text) not in {(hit["id"], hit["text"]) for hit in hits}:
                    fault(f"{collection}: {document} is not found by {mode} as {state.text!r}")
                for hit in hits:
                    told = known.get(hit["id"])
                    if told is None or (hit["text"], hit["metadata"]["version"]) != (told.text, told.version):
                        fault(f"{collection}: a search has {hit}, known is {told}")
        for word, hits in zip(
            gone := writer.gone(collection), _searched(http, collection, gone, "keyword"), strict=True
        ):
            if hits:
                fault(f"{collection}: {word!r} is gone, and found in {hits}")
        versions = [state.version for state in by_id.values()]
        for condition, expected in (
            ({"$in": versions}, by_id.keys()),
            ({"$nin": versions}, set()),
            ({"$gte": (middle := writer.version // 2)}, {i for i, state in by_id.items() if state.version >= middle}),
        ):
            body = {"filter": {"writer": writer.number, "version": condition}, "limit": 10_000, "include": []}
            found = {each["id"] for each in _asked(http, f"{collection}/documents/list", **body)["documents"]}
            if found != expected:
                fault(f"{collection}: {condition} of writer {writer.number} finds {found}, not {expected}")


def _asked(http: httpx.Client, path: str, **body: Any) -> Any:
    return http.post(f"/collections/{path}", json=body).raise_for_status().json()


def _searched(http: httpx.Client, collection: str, queries: list[str], mode: str) -> list[list[dict[str, Any]]]:
    """Return the hits of each query."""
    if not queries:
        return []
    answer = _asked(http, f"{collection}/search", queries=queries, k=5, mode=mode)
    return [result["hits"] for result in answer["results"]]


def _query(collection: str, state: Content) -> str:
    """Return a text that a document of this content is the nearest to, or one of its spans."""
    return state.text.split(".")[0] + "." if collection == "spans" else state.text


class _Writer:
    """A client that writes to ids of its own, and searches; it ends when the service does."""

    def __init__(self, number: int, chance: random.Random, tally: Tally) -> None:
        self.number = number
        self.version = 0
        """The last one that it has used."""
        self.history = History()
        self._random = chance
        self._tally = tally
        self._known = {(name, f"{number}/{item}"): Known() for name in COLLECTIONS for item in range(IDS)}
        self._gone: dict[str, dict[str, None]] = {name: {} for name in COLLECTIONS}

    def known(self, collection: str) -> dict[str, State]:
        """Return what is known of its documents in a collection."""
        return {document: known.state for (name, document), known in self._known.items() if name == collection}

    def gone(self, collection: str) -> list[str]:
        """Return words of texts that a collection has no more, the last ones."""
        return [*self._gone[collection]][-_MOST_GONE:]

    def settle(self, collection: str, held: dict[str, dict[str, Any]]) -> None:
        """See what became of each document, which must be what is known or what was under way.

        Of a request that was under way, either all was done or nothing.
        """
        done = set()
        under_way = False
        for document in self.known(collection):
            known = self._known[collection, document]
            states = [known.state, *known.perhaps]
            body = held.get(document)
            found = None
            if body is not None:
                version = body["metadata"].get("version")
                found = next(
                    (one for one in states if one and (one.text, one.version) == (body["text"], version)), None
                )
            if found not in states or (found is None) != (body is None):
                self._tally.faults.append(
                    f"{collection}/{document} is {body}; acknowledged was {known.state}, under way {known.perhaps}"
                )
            under_way |= bool(known.perhaps)
            done |= {found == state for state in known.perhaps if state != known.state}
            self._settled(collection, document, found)
        if under_way:
            self.history.end(done=done != {False})
        if len(done) > 1:
            self._tally.faults.append(f"{collection}: half of a request of writer {self.number} was done")

    def run(self, url: str) -> None:
        """Write and search until the service dies."""
        steps = [self._upsert] * 6 + [self._delete] * 2 + [self._delete_many, self._retag] * 2
        steps += [self._search] * 4 + [self._count] * 2
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as http:
            try:
                while True:
                    self._random.choice(steps)(http, self._random.choice([*COLLECTIONS]))
            except httpx.TransportError:
                return
            except httpx.HTTPStatusError as error:
                self._tally.faults.append(f"{error.request.method} {error.request.url}: {error.response.text}")

    def _settled(self, collection: str, document: str, state: State) -> None:
        """Note what a document is now, and that all else that it was or may have been is gone."""
        before = self._known[collection, document]
        self._known[collection, document] = Known(state)
        kept = state.word if state else None
        words = [one.word for one in (before.state, *before.perhaps) if one and one.word != kept]
        self._gone[collection] |= dict.fromkeys(words)

    def _upsert(self, http: httpx.Client, collection: str) -> None:
        states = {document: self._new() for document in self._some()}
        documents = [
            {"id": document, "text": state.text, "metadata": self._metadata(state)}
            for document, state in states.items()
        ]
        self._write(collection, dict(states), http, "POST", "documents", json={"documents": documents})

    def _delete(self, http: httpx.Client, collection: str) -> None:
        document = f"{self.number}/{self._random.randrange(IDS)}"
        self._write(collection, {document: None}, http, "DELETE", f"documents/{document}")

    def _delete_many(self, http: httpx.Client, collection: str) -> None:
        states: dict[str, State] = dict.fromkeys(self._some())
        self._write(collection, states, http, "POST", "documents/delete", json={"ids": [*states]})

    def _retag(self, http: httpx.Client, collection: str) -> None:
        """Replace the metadata of documents, or the version in them."""
        self.version += 1
        states = {
            document: known._replace(version=self.version) if (known := self._state(collection, document)) else None
            for document in self._some()
        }
        change = {"version": self.version}
        kind = self._random.choice(["replace", "merge"])
        body = {"ids": [*states], kind: change | ({"writer": self.number} if kind == "replace" else {})}
        self._write(collection, states, http, "POST", "documents/metadata", json=body)

    def _some(self) -> list[str]:
        return [f"{self.number}/{item}" for item in self._random.sample(range(IDS), self._random.randint(1, 6))]

    def _state(self, collection: str, document: str) -> State:
        return self._known[collection, document].state

    def _count(self, http: httpx.Client, collection: str) -> None:
        """Count its documents by their metadata."""
        states = [state for state in self.known(collection).values() if state]
        least = self._random.randint(0, self.version)
        body = {"filter": {"writer": self.number, "version": {"$gte": least}}}
        counted = _asked(http, f"{collection}/documents/count", **body)["count"]
        if counted != (expected := sum(state.version >= least for state in states)):
            self._tally.faults.append(
                f"{collection}: {counted} of writer {self.number} from {least} on, not {expected}"
            )

    def _write(
        self, collection: str, states: dict[str, State], http: httpx.Client, method: str, path: str, **body: Any
    ) -> None:
        for document, state in states.items():
            self._known[collection, document].perhaps = [state]
        self.history.begin(
            {
                (collection, document): (state.text, state.version) if state else None
                for document, state in states.items()
            }
        )
        answer = http.request(method, f"/collections/{collection}/{path}", **body)
        absent = answer.status_code == 404 and method == "DELETE"
        if absent and self._known[collection, next(iter(states))].state is not None:
            self._tally.faults.append(
                f"{collection}/{next(iter(states))} was acknowledged, and is not there to delete"
            )
        if not answer.is_success and not absent:
            self._tally.faults.append(f"{method} {collection}/{path}: {answer.status_code} {answer.text}")
        for document, state in states.items():
            self._settled(collection, document, state)
        self.history.end()
        self._tally.acknowledged += 1

    def _search(self, http: httpx.Client, collection: str) -> None:
        """Look for a document of its own: it is found as it is, and none that it replaced or deleted."""
        mine = {document: state for document, state in self.known(collection).items() if state}
        if not mine:
            return
        document, state = self._random.choice([*mine.items()])
        mode = self._random.choice(["dense", "keyword", "hybrid"])
        body = {"query": _query(collection, state), "mode": mode, "k": 50, "filter": {"writer": self.number}}
        hits = _asked(http, f"{collection}/search", **body)["hits"]
        for hit in hits:
            known = mine.get(hit["id"])
            if known is None or (known.text, known.version) != (hit["text"], hit["metadata"]["version"]):
                self._tally.faults.append(f"{collection}/{hit['id']}: a search has {hit}, known is {known}")
        if document not in {hit["id"] for hit in hits}:
            self._tally.faults.append(
                f"{collection}/{document}: a {mode} search does not find it by its text {state.text!r}"
            )
        if gone := self.gone(collection):
            (hits,) = _searched(http, collection, [word := self._random.choice(gone)], "keyword")
            if hits:
                self._tally.faults.append(f"{collection}: {word!r} is gone, and found in {hits}")
        self._tally.searches += 1

    def _new(self) -> Content:
        self.version += 1
        words, word = " ".join(self._random.choices(_WORDS, k=6)), f"w{self.number}v{self.version}"
        return Content(f"{words} {word}. {self._random.choice(_WORDS)} {word}.", word, self.version)

    def _metadata(self, state: Content) -> dict[str, int]:
        return {"version": state.version, "writer": self.number}


def main() -> int:
    """Run it from the command line; returns 1 where something went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    began = time.monotonic()
    folder = Path(mkdtemp())
    tally = Kills(folder, arguments.seed).run(arguments.kills)
    if tally.faults:
        print(f"what was left is in {folder}")
    else:
        rmtree(folder)
    print(tally, *tally.faults, sep="\n")
    print(f"{tally.kills / (time.monotonic() - began) * 60:.1f} kills a minute")
    return bool(tally.faults)


if __name__ == "__main__":
    sys.exit(main())
