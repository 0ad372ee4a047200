"""Users that want vectors."""

from __future__ import annotations

from base64 import b64decode
from typing import Any, Final

import numpy as np
from locust import task
from numpy.typing import NDArray

from loadtests.users.base import ServiceUser, require

LEAST_COSINE: Final = 0.98
"""Between two vectors of one text: lower precisions vary a little with the batch, another text's is far off."""

MOST_SEEN: Final = 5_000
"""Texts whose vectors are kept."""

_seen: Final[dict[str, NDArray[np.float32]]] = {}
"""The first vector of each text, of length one; shared by all users."""


class EmbeddingUser(ServiceUser):
    """Can embed texts and knows a right answer."""

    abstract = True

    def embed(self, texts: list[str]) -> None:
        """Embed texts. A vector must be of the model's dimension, finite, and the one the text had before."""

        def check(answer: Any) -> None:
            data = answer["data"]
            require(len(data) == len(texts), f"{len(data)} vectors for {len(texts)} texts")
            for text, item in zip(texts, data, strict=True):
                raw = b64decode(item["embedding"])
                require(
                    len(raw) == 4 * self.dimension, f"a vector of {len(raw) / 4:g} dimensions, not {self.dimension}"
                )
                vector = np.frombuffer(raw, dtype=np.float32)
                length = float(np.linalg.norm(vector))
                require(0 < length < np.inf, "a vector that is zero or not finite")
                vector = vector / length
                before = _seen.get(text, vector) if len(_seen) >= MOST_SEEN else _seen.setdefault(text, vector)
                cosine = float(vector @ before)
                require(
                    cosine >= LEAST_COSINE,
                    f"{text[:60]!r} had another vector before (cosine {cosine:.3f}): mixed up?",
                )

        body = {"model": self.model, "input": texts, "encoding_format": "base64", "truncate": True}
        name = "embed 1" if len(texts) == 1 else "embed several"
        self.ask("POST", "/v1/embeddings", body, name=name, check=check, texts=len(texts))


class EmbedSmall(EmbeddingUser):
    """One short sentence a request."""

    @task
    def one(self) -> None:
        """Embed a sentence."""
        self.embed([self.random.choice(self.texts.sentences)])


class EmbedImpatient(EmbeddingUser):
    """Some sentences a request, asked for again in a second where it is refused, however long it is asked to wait."""

    @task
    def some(self) -> None:
        """Embed 32 sentences."""
        self.embed(self.random.sample(self.texts.sentences, 32))

    def patience(self, asked: float) -> float:
        """Return about a second, chosen anew each time, so that not all come back together."""
        return self.random.uniform(0.5, 1.5)


class EmbedBulk(EmbeddingUser):
    """Some tens of sentences a request."""

    @task
    def many(self) -> None:
        """Embed 32 to 64 sentences."""
        self.embed(self.random.sample(self.texts.sentences, self.random.randint(32, 64)))
