"""Users that look for documents."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, Final

from locust import task

from loadtests.users.base import ServiceUser, require

HITS: Final = 10

CheckHits = Callable[[list[dict[str, Any]]], None]


class SearchingUser(ServiceUser):
    """Can search the collection and knows a right answer."""

    abstract = True

    def search(self, query: str, name: str, check: CheckHits, **more: Any) -> None:
        """Search; the hits must come in the order of their scores and pass `check`."""

        def ordered(answer: Any) -> None:
            hits = answer["hits"]
            require(
                all(first["score"] >= second["score"] for first, second in pairwise(hits)),
                "the hits are not in the order of their scores",
            )
            check(hits)

        path = f"/collections/{self.collection}/search"
        self.ask("POST", path, {"query": query, "k": HITS, **more}, name=name, check=ordered, texts=1)


class SearchDocuments(SearchingUser):
    """Searches documents that nobody changes."""

    @task
    def ask_cranfield(self) -> None:
        """Search by one of Cranfield's questions."""

        def check(hits: list[dict[str, Any]]) -> None:
            require(len(hits) == HITS, f"{len(hits)} hits, not {HITS}")
            for hit in hits:
                require(
                    hit["text"] == self.texts.documents.get(hit["id"]),
                    f"hit {hit['id']!r} is not Cranfield's document",
                )

        self.search(self.random.choice(self.texts.questions), "search", check)
