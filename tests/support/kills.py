"""Kill a service at random moments while clients write and search, and look for what was lost.

`python -m tests.support.kills --kills 500` prints its seed, and what it found. Each writer has ids of its own, and so
knows what each of them must hold: what was acknowledged last, or what was under way when the service died.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import httpx
import yaml

from tests.support.checkpoints import plain_bert
from tests.support.servers import NotStarted, Server

WRITERS: Final = 3
IDS: Final = 40
"""Ids of a writer."""
COLLECTIONS: Final = ("whole", "spans")
_WORDS: Final = ("mill", "pond", "wheel", "water", "grain", "evening", "miller", "bridge", "river", "stone", "sack")

State = tuple[str, str] | None
"""Text and metadata of a document; None where it is absent."""


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
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.kills} kills ({self.during_start} during a start), {self.acknowledged} writes acknowledged, "
            f"{self.searches} searches, {self.reindexes} reindexes begun, {len(self.faults)} faults"
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
        while self.tally.kills < kills:
            if self._random.random() < 0.1:
                self._kill_during_start()
            with self._server() as server:
                self._check(server.http)
                self._load_and_kill(server)
            self.tally.kills += 1
            print(f"\r{self.tally}", end="", file=sys.stderr, flush=True)
            if self.tally.faults:
                break
        with self._server() as server:
            self._check(server.http)
        return self.tally

    def _server(self) -> Server:
        return Server(self._config, self._store)

    def _kill_during_start(self) -> None:
        server = self._server()
        delay = self._random.uniform(0.3, 3)
        killer = threading.Timer(delay, lambda: server.kill())
        killer.start()
        try:
            with server:
                killer.join()
        except NotStarted:
            killer.join()
        self.tally.during_start += 1
        self.tally.kills += 1

    def _load_and_kill(self, server: Server) -> None:
        with ThreadPoolExecutor(WRITERS + 1) as pool:
            running = [pool.submit(writer.run, server.url) for writer in self._writers]
            running.append(pool.submit(self._reindex, server.url, self._random.random()))
            time.sleep(self._random.uniform(0.05, 2))
            server.kill()
            for each in running:
                each.result(timeout=120)

    def _reindex(self, url: str, seed: float) -> None:
        """Reindex now and then, and give it up now and then."""
        chance = random.Random(seed)
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as http:
            try:
                while True:
                    path = f"/collections/{chance.choice(COLLECTIONS)}/reindex"
                    if http.post(path, json={"force": True}).status_code == 202:
                        self.tally.reindexes += 1
                    time.sleep(chance.uniform(0, 0.3))
                    if chance.random() < 0.3:
                        http.delete(path)
            except httpx.TransportError:
                return

    def _check(self, http: httpx.Client) -> None:
        """Compare what the service holds with what is known."""
        http.put("/collections/whole").raise_for_status()
        http.put("/collections/spans", json={"chunking": {"by": "sentence", "mode": "early"}}).raise_for_status()
        for writer in self._writers:
            writer.settle(http)
        for collection in COLLECTIONS:
            held = sum(writer.count(collection) for writer in self._writers)
            described = http.get(f"/collections/{collection}").json()
            if described["count"] != held:
                self.tally.faults.append(f"{collection}: {described['count']} documents, and {held} are known")
            texts = [text for writer in self._writers for text in writer.texts(collection)]
            for start in range(0, len(texts), 64):
                self._find(http, collection, texts[start : start + 64])

    def _find(self, http: httpx.Client, collection: str, texts: list[tuple[str, str]]) -> None:
        for mode in ("dense", "keyword"):
            body = {"queries": [_query(collection, text) for _, text in texts], "k": 5, "mode": mode}
            answer = http.post(f"/collections/{collection}/search", json=body).raise_for_status()
            for (document, text), result in zip(texts, answer.json()["results"], strict=True):
                if document not in {hit["id"] for hit in result["hits"]}:
                    self.tally.faults.append(f"{collection}: {document} is not found by {mode} as {text!r}")


def _query(collection: str, text: str) -> str:
    """Return a text that a document of this text is the nearest to, or one of its spans."""
    return text if collection == "whole" else text.split(".")[0] + "."


class _Writer:
    """A client that writes to ids of its own, and searches; it ends when the service does."""

    def __init__(self, number: int, chance: random.Random, tally: Tally) -> None:
        self._number = number
        self._random = chance
        self._tally = tally
        self._version = 0
        self._known = {(name, f"{number}/{item}"): Known() for name in COLLECTIONS for item in range(IDS)}

    def count(self, collection: str) -> int:
        """Return how many of its documents a collection holds."""
        return sum(known.state is not None for (name, _), known in self._known.items() if name == collection)

    def texts(self, collection: str) -> list[tuple[str, str]]:
        """Return id and text of its documents in a collection."""
        return [
            (document, known.state[0])
            for (name, document), known in self._known.items()
            if name == collection and known.state is not None
        ]

    def settle(self, http: httpx.Client) -> None:
        """Ask what became of each document, which must be what is known or what was under way."""
        for (collection, document), known in self._known.items():
            answer = http.get(f"/collections/{collection}/documents/{document}")
            found: State = None
            if answer.status_code == 200:
                body = answer.json()
                found = body["text"], json.dumps(body["metadata"], sort_keys=True)
            elif answer.status_code != 404:
                self._tally.faults.append(f"{collection}/{document}: {answer.status_code} {answer.text}")
                continue
            if found not in [known.state, *known.perhaps]:
                self._tally.faults.append(
                    f"{collection}/{document} is {found}; acknowledged was {known.state}, under way {known.perhaps}"
                )
            known.state, known.perhaps = found, []

    def run(self, url: str) -> None:
        """Write and search until the service dies."""
        steps = [self._upsert] * 6 + [self._delete] * 2 + [self._delete_many, self._retag] * 2
        steps += [self._search] * 4 + [self._count]
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as http:
            try:
                while True:
                    self._random.choice(steps)(http, self._random.choice(COLLECTIONS))
            except httpx.TransportError:
                return

    def _upsert(self, http: httpx.Client, collection: str) -> None:
        states = {
            f"{self._number}/{self._random.randrange(IDS)}": self._new() for _ in range(self._random.randint(1, 6))
        }
        documents = [
            {"id": document, "text": text, "metadata": json.loads(metadata)}
            for document, (text, metadata) in states.items()
        ]
        self._write(collection, dict(states), http, "POST", "documents", json={"documents": documents})

    def _delete(self, http: httpx.Client, collection: str) -> None:
        document = f"{self._number}/{self._random.randrange(IDS)}"
        self._write(collection, {document: None}, http, "DELETE", f"documents/{document}")

    def _delete_many(self, http: httpx.Client, collection: str) -> None:
        states: dict[str, State] = dict.fromkeys(self._some())
        self._write(collection, states, http, "POST", "documents/delete", json={"ids": [*states]})

    def _retag(self, http: httpx.Client, collection: str) -> None:
        ids, (_, metadata) = self._some(), self._new()
        states = {
            document: (known[0], metadata) if (known := self._state(collection, document)) else None
            for document in ids
        }
        body = {"ids": ids, "replace": json.loads(metadata)}
        self._write(collection, states, http, "POST", "documents/metadata", json=body)

    def _some(self) -> list[str]:
        return [f"{self._number}/{item}" for item in self._random.sample(range(IDS), self._random.randint(1, 6))]

    def _state(self, collection: str, document: str) -> State:
        return self._known[collection, document].state

    def _count(self, http: httpx.Client, collection: str) -> None:
        """Count its documents by their metadata."""
        body = {"filter": {"writer": self._number}}
        counted = (
            http.post(f"/collections/{collection}/documents/count", json=body).raise_for_status().json()["count"]
        )
        if counted != self.count(collection):
            self._tally.faults.append(
                f"{collection}: {counted} of writer {self._number}, not {self.count(collection)}"
            )

    def _write(
        self, collection: str, states: dict[str, State], http: httpx.Client, method: str, path: str, **body: Any
    ) -> None:
        for document, state in states.items():
            self._known[collection, document].perhaps = [state]
        answer = http.request(method, f"/collections/{collection}/{path}", **body)
        absent = answer.status_code == 404 and method == "DELETE"
        if absent and self._known[collection, next(iter(states))].state is not None:
            self._tally.faults.append(
                f"{collection}/{next(iter(states))} was acknowledged, and is not there to delete"
            )
        if not answer.is_success and not absent:
            self._tally.faults.append(f"{method} {collection}/{path}: {answer.status_code} {answer.text}")
        for document, state in states.items():
            self._known[collection, document] = Known(state)
        self._tally.acknowledged += 1

    def _search(self, http: httpx.Client, collection: str) -> None:
        """Look for a document of its own: it is found as it is, and none that it deleted."""
        mine = self.texts(collection)
        if not mine:
            return
        document, text = self._random.choice(mine)
        mode = self._random.choice(["dense", "keyword", "hybrid"])
        body = {"query": _query(collection, text), "mode": mode, "k": 50, "filter": {"writer": self._number}}
        hits = http.post(f"/collections/{collection}/search", json=body).raise_for_status().json()["hits"]
        for hit in hits:
            state = self._known[collection, hit["id"]].state
            if state is None or state[0] != hit["text"]:
                self._tally.faults.append(f"{collection}/{hit['id']}: a search has {hit['text']!r}, known is {state}")
        if document not in {hit["id"] for hit in hits}:
            self._tally.faults.append(
                f"{collection}/{document}: a {mode} search does not find it by its text {text!r}"
            )
        self._tally.searches += 1

    def _new(self) -> tuple[str, str]:
        self._version += 1
        words = " ".join(self._random.choices(_WORDS, k=6))
        text = f"{words} {self._number} {self._version}. {self._random.choice(_WORDS)} {self._version}."
        return text, json.dumps({"version": self._version, "writer": self._number})


def main() -> int:
    """Run it from the command line; returns 1 where something went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    with TemporaryDirectory() as folder:
        run = Kills(Path(folder), arguments.seed)
        tally = run.run(arguments.kills)
    print(tally, *tally.faults, sep="\n")
    return bool(tally.faults)


if __name__ == "__main__":
    sys.exit(main())
