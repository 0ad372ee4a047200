"""txtai: `txtai.api:app` over a writable index, its FAISS backend and its content store."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import yaml

from benchmarks.encoder import MAX_TOKENS, minilm
from benchmarks.load import Client, Load, Request
from benchmarks.peers import environment, versions_in
from benchmarks.servers import Target
from tests.support.servers import Launcher, environment_without_settings, free_port

_VARIABLE: Final = "MILLPOND_TXTAI"


class Txtai(Target):
    """Its API under uvicorn, over the bundled model. Long texts are truncated where the others truncate them."""

    def __init__(self) -> None:
        super().__init__("txtai")

    def launcher(self, folder: Path) -> Launcher:
        """Start it as its documentation has it."""
        program, port, config = environment(_VARIABLE, "uvicorn") / "uvicorn", free_port(), folder / "txtai.yaml"
        model = {"path": minilm(), "method": "transformers", "maxlength": MAX_TOKENS}
        embeddings = {**model, "content": True, "backend": "faiss"}
        config.write_text(yaml.safe_dump({"path": str(folder / "index"), "writable": True, "embeddings": embeddings}))
        return Launcher(
            [program, "txtai.api:app", "--host", "127.0.0.1", "--port", str(port)],
            port,
            folder / "txtai.log",
            ready="/openapi.json",
            cwd=folder,
            env={**environment_without_settings(), "CONFIG": str(config), "HF_HUB_OFFLINE": "1"},
            patience=120,
        )

    @property
    def remark(self) -> str:
        """Its version and those below it."""
        python = environment(_VARIABLE, "uvicorn") / "python"
        return f"txtai: {versions_in(python, ('txtai', 'torch', 'transformers', 'faiss-cpu'))}."

    def embed_request(self, texts: Sequence[str]) -> Request:
        """Ask for vectors as JSON numbers: it has no base64."""
        return Request("POST", "/batchtransform", json.dumps(list(texts)), len(texts))

    json_request = embed_request

    def index(self, client: Client, documents: Sequence[Mapping[str, str]], *, each: int, clients: int) -> float:
        """Add all, then index them in place of what was there."""
        parts = [documents[start : start + each] for start in range(0, len(documents), each)]
        add = [Request("POST", "/add", json.dumps(part), len(part)) for part in parts]
        index = [Request("GET", "/index")]
        port = self.running.port
        seconds = client.run(Load(port, add, clients)).seconds + client.run(Load(port, index, 1)).seconds
        assert self.ask(Request("GET", "/count")) == len(documents)
        return seconds

    def search_request(self, query: str, k: int) -> Request:
        """Search by text."""
        return Request("GET", f"/search?{urlencode({'query': query, 'limit': k})}")
