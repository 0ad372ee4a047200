"""txtai: `txtai.api:app` over a writable index, its FAISS backend and its content store."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import numpy as np
import orjson
import yaml
from numpy.typing import NDArray

from benchmarks.bare import MAX_TOKENS
from benchmarks.load import Request
from benchmarks.loop import bundled
from benchmarks.machine import versions_in
from benchmarks.peers.environment import environment
from benchmarks.servers import Server

VARIABLE: Final = "MILLPOND_TXTAI"


class Txtai(Server):
    """Its API under uvicorn, over the bundled model. Long texts are cut where the others cut them.

    Raises:
        MissingPeer: it is not installed where `MILLPOND_TXTAI` says.

    """

    ready = "/openapi.json"
    patience = 120.0
    counted = "list"

    def __init__(self, folder: Path) -> None:
        super().__init__("txtai", folder)
        self._bin = environment(VARIABLE, "uvicorn")
        embeddings = {
            **{"path": bundled(), "method": "transformers", "maxlength": MAX_TOKENS},
            **{"content": True, "backend": "faiss"},
        }
        self._config = folder / f"{self.port}.yaml"
        settings = {"path": str(folder / f"{self.port}-index"), "writable": True, "embeddings": embeddings}
        self._config.write_text(yaml.safe_dump(settings))

    @property
    def versions(self) -> str:
        """Its version and those below it."""
        return versions_in(self._bin / "python", ("txtai", "torch", "transformers", "faiss-cpu"))

    def command(self) -> Sequence[str | Path]:
        """As its documentation has it."""
        return [self._bin / "uvicorn", "txtai.api:app", "--host", "127.0.0.1", "--port", str(self.port)]

    def environment(self) -> Mapping[str, str]:
        """The index it serves; it asks no hub."""
        return {**super().environment(), "CONFIG": str(self._config), "HF_HUB_OFFLINE": "1"}

    def embed_request(self, texts: Sequence[str]) -> Request:
        """Vectors as JSON numbers: it has no base64."""
        return Request("POST", "/batchtransform", json.dumps(list(texts)), len(texts))

    def vectors(self, answer: bytes) -> NDArray[np.float32]:
        """Vectors (texts, dim)."""
        return np.array(orjson.loads(answer), dtype=np.float32)

    def add_request(self, documents: Sequence[Mapping[str, str]]) -> Request:
        """Documents to be indexed at the next `GET /index`."""
        return Request("POST", "/add", json.dumps([dict(document) for document in documents]), len(documents))

    def index_request(self) -> Request:
        """Index what was added; it is searchable once this is answered."""
        return Request("GET", "/index", "", 1)

    def search_request(self, query: str, limit: int) -> Request:
        """Search by text."""
        return Request("GET", f"/search?{urlencode({'query': query, 'limit': limit})}", "", 1)
