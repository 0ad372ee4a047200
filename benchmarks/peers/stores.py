"""Store vectors in Chroma or in Qdrant's local mode, or open the store again and search it; prints figures as JSON.

    PYTHON stores.py chroma|qdrant store|search FOLDER PARTS...

FOLDER has `vectors.npy` (n, dim) and `queries.npy` (q, dim), and the store in a folder below. The n-th vector has the
id n and the metadata `{"part": n % 1000}`; searches are for the ten nearest, of all and of those whose part is below
each of PARTS. Runs in the peer's environment and imports nothing of this project.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

BATCH = 1000
PARTS = 1000
K = 10


class Store(Protocol):
    """A store with a collection, made where it is not there."""

    def add(self, start: int, vectors: Any) -> None:
        """Store vectors under the ids from a number on."""

    def search(self, query: Any, below: int | None) -> list[str]:
        """Return the ids of the nearest, of those whose part is below a number."""


class Chroma:
    """A persistent client of Chroma, embedded in this process."""

    def __init__(self, folder: Path, dim: int) -> None:
        import chromadb

        settings = chromadb.Settings(anonymized_telemetry=False)
        client = chromadb.PersistentClient(path=str(folder), settings=settings)
        self._collection = client.get_or_create_collection(
            "vectors", configuration={"hnsw": {"space": "cosine"}}, embedding_function=None
        )

    def add(self, start: int, vectors: Any) -> None:
        """Store vectors under the ids from a number on."""
        places = range(start, start + len(vectors))
        metadata = [{"part": place % PARTS} for place in places]
        self._collection.upsert(ids=[str(place) for place in places], embeddings=vectors, metadatas=metadata)

    def search(self, query: Any, below: int | None) -> list[str]:
        """Return the ids of the nearest, of those whose part is below a number."""
        where = {} if below is None else {"where": {"part": {"$lt": below}}}
        found: list[str] = self._collection.query(query_embeddings=query[None], n_results=K, **where)["ids"][0]
        return found


class Qdrant:
    """Qdrant's local mode: its client with a folder."""

    def __init__(self, folder: Path, dim: int) -> None:
        from qdrant_client import QdrantClient, models

        self._client, self._models = QdrantClient(path=str(folder)), models
        if not self._client.collection_exists("vectors"):
            config = models.VectorParams(size=dim, distance=models.Distance.COSINE)
            self._client.create_collection("vectors", vectors_config=config)

    def add(self, start: int, vectors: Any) -> None:
        """Store vectors under the ids from a number on."""
        places = range(start, start + len(vectors))
        payloads = [{"part": place % PARTS} for place in places]
        points = self._models.Batch(ids=list(places), vectors=vectors.tolist(), payloads=payloads)
        self._client.upsert("vectors", points=points)

    def search(self, query: Any, below: int | None) -> list[str]:
        """Return the ids of the nearest, of those whose part is below a number."""
        condition = None
        if below is not None:
            field = self._models.FieldCondition(key="part", range=self._models.Range(lt=below))
            condition = self._models.Filter(must=[field])
        found = self._client.query_points("vectors", query=query, limit=K, query_filter=condition)
        return [str(point.id) for point in found.points]


STORES: dict[str, Callable[[Path, int], Store]] = {"chroma": Chroma, "qdrant": Qdrant}


def main(name: str, action: str, folder: Path, parts: list[int]) -> None:
    """Print what an action took."""
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    queries = np.load(folder / "queries.npy")
    began = time.perf_counter()
    store = STORES[name](folder / name, vectors.shape[1])
    if action == "store":
        for start in range(0, len(vectors), BATCH):
            store.add(start, np.array(vectors[start : start + BATCH]))
        print(json.dumps({"seconds": time.perf_counter() - began}))
        return
    store.search(queries[0], None)
    found: dict[str, Any] = {"opened": time.perf_counter() - began, "searches": {}}
    for below in [None, *parts]:
        answers = [timed(store, query, below) for query in queries]
        found["searches"]["" if below is None else str(below)] = answers
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    print(json.dumps(found | {"memory": pages * resource.getpagesize() / 1e6}))


def timed(store: Store, query: Any, below: int | None) -> tuple[float, list[str]]:
    """Return the seconds of a search, and what it finds."""
    began = time.perf_counter()
    found = store.search(query, below)
    return time.perf_counter() - began, found


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), [int(part) for part in sys.argv[4:]])
