"""Users that read and write at once, and hold the service to what it has acknowledged."""

from __future__ import annotations

from typing import Any, Final
from uuid import uuid4

from locust import task

from loadtests.users.base import require
from loadtests.users.embed import EmbeddingUser
from loadtests.users.search import HITS, SearchingUser

MOST_WRITTEN: Final = 4
"""Documents in one upsert."""
MOST_KEPT: Final = 50
"""Documents of a user beyond which it deletes before it writes, so that growth in a long run is none of the store."""


class ReadAndWrite(EmbeddingUser, SearchingUser):
    """Writes documents of its own into the collection that it searches.

    Nobody else writes them, so each answer about them is known in advance: `_stored` must be there, with the text
    that was acknowledged last; what was deleted must not. A document whose write got no good answer may be either.
    """

    def on_start(self) -> None:
        """Begin without documents."""
        super().on_start()
        self._mine = f"{uuid4().hex}-{self.number}"
        self._written = 0
        self._stored: dict[str, str] = {}
        self._unsure: set[str] = set()

    @task(6)
    def search_all(self) -> None:
        """Search the whole collection, which is never smaller than Cranfield."""

        def check(hits: list[dict[str, Any]]) -> None:
            require(len(hits) == HITS, f"{len(hits)} hits, not {HITS}")

        self.search(self.random.choice(self.texts.questions), "search", check)

    @task(2)
    def search_mine(self) -> None:
        """Search only one's own documents, by a filter: all of them count, and no other."""

        def check(hits: list[dict[str, Any]]) -> None:
            found = {hit["id"]: hit["text"] for hit in hits}
            expected = min(HITS, len(self._stored))
            require(len(found) >= expected, f"{len(found)} hits of {len(self._stored)} acknowledged documents")
            for key, text in found.items():
                if key not in self._unsure:
                    require(self._stored.get(key) == text, f"hit {key!r} was deleted or replaced, as acknowledged")

        query = self.random.choice(self.texts.questions)
        self.search(query, "search, filtered", check, filter={"writer": self._mine})

    @task(2)
    def embed_some(self) -> None:
        """Embed a few sentences."""
        self.embed(self.random.sample(self.texts.sentences, self.random.randint(2, 8)))

    @task(2)
    def upsert(self) -> None:
        """Store new documents, at times with a new text for an old one; then fetch one of them."""
        while len(self._stored) > MOST_KEPT:
            self.delete()
        texts = self.random.sample(list(self.texts.documents.values()), self.random.randint(1, MOST_WRITTEN))
        keys = [f"{self._mine}-{self._written + place}" for place in range(len(texts))]
        self._written += len(texts)
        if self._stored and self.random.random() < 0.25:
            keys[0] = self.random.choice(list(self._stored))
        new = dict(zip(keys, texts, strict=True))

        def check(answer: Any) -> None:
            require(answer["upserted"] == len(new), f"{answer['upserted']} documents stored of {len(new)}")

        for key in new:
            self._forget(key)
        items = [{"id": key, "text": text, "metadata": {"writer": self._mine}} for key, text in new.items()]
        body = {"documents": items, "truncate": True}
        self.ask("POST", self._path, body, name="upsert", check=check, texts=len(new))
        self._stored |= new
        self._unsure -= new.keys()
        self._fetch(self.random.choice(keys))

    @task(1)
    def fetch_any(self) -> None:
        """Fetch one of one's documents, however old."""
        if self._stored:
            self._fetch(self.random.choice(list(self._stored)))

    @task(2)
    def delete(self) -> None:
        """Delete one of one's documents; then it must not be found."""
        if not self._stored:
            return
        key = self.random.choice(list(self._stored))
        self._forget(key)
        self.ask("DELETE", f"{self._path}/{key}", name="delete", check=lambda _: None, status=204)
        self._unsure.discard(key)
        self.ask("GET", f"{self._path}/{key}", name="fetch deleted", check=lambda _: None, status=404)

    @property
    def _path(self) -> str:
        return f"/collections/{self.collection}/documents"

    def _forget(self, key: str) -> None:
        self._stored.pop(key, None)
        self._unsure.add(key)

    def _fetch(self, key: str) -> None:
        text = self._stored[key]

        def check(answer: Any) -> None:
            require(answer["id"] == key, f"document {answer['id']!r}, not {key!r}")
            require(answer["text"] == text, f"document {key!r} has another text than was acknowledged")

        self.ask("GET", f"{self._path}/{key}", name="fetch", check=check)


class Anything(ReadAndWrite):
    """The same, and texts of any length in any number."""

    @task(4)
    def embed_anything(self) -> None:
        """Embed from one to 200 texts, from a word to more than the model takes; most are few and short."""
        words = " ".join(self.random.choice(list(self.texts.documents.values())) for _ in range(2)).split()
        most = int(10 ** self.random.uniform(0, 2.5))
        texts = []
        for _ in range(int(10 ** self.random.uniform(0, 2.3))):
            start = self.random.randrange(len(words))
            texts.append(" ".join(words[start : start + self.random.randint(1, most)]))
        self.embed(texts)
