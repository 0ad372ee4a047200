"""Millpond as a server to measure, and its command line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml

from benchmarks.encoder import MINILM
from benchmarks.load import Client, Load, Request
from benchmarks.machine import has_bf16
from benchmarks.servers import Field, Target
from benchmarks.texts import Vectors
from tests.support.servers import ROOT, Launcher, NotStarted, Server

PRECISIONS: Final = ("fp32", "bf16", "int8")


class Millpond(Target):
    """`millpond serve` with a config of one model.

    Args:
        name: what tables call it.
        model: keys of the model's config beside the encoder; the bundled encoder as it declares itself by default.
        store: the folder of its store, which outlives it; one that does not by default.
        max_batch_tokens: of its passes; as the config has it by default.
        milvus: the address of a Milvus server that keeps its documents instead.
        runtime: the config's section. Where it names a precision, the server starts only at this one.

    """

    def __init__(
        self,
        name: str,
        *,
        model: Mapping[str, Any] | None = None,
        store: Path | None = None,
        max_batch_tokens: int | None = None,
        milvus: str | None = None,
        **runtime: str,
    ) -> None:
        super().__init__(name)
        self._store = store
        self._config: dict[str, Any] = {
            "models": {"default": {"encoder": MINILM, **(model or {})}},
            "runtime": runtime,
            "batching": {"max_queued_seconds": 60},  # a load that a slow machine would refuse is to be measured too
        }
        if max_batch_tokens is not None:
            self._config["batching"]["max_batch_tokens"] = max_batch_tokens
        if milvus is not None:
            self._config["store"] = {"engine": "milvus", "uri": milvus}
        self.precision = runtime.get("precision", "auto")

    def launcher(self, folder: Path) -> Launcher:
        """Write the config; the first start at a precision converts the model, which takes its time."""
        if self.precision == "bf16" and self._config["runtime"].get("device") != "cuda" and not has_bf16():
            raise NotStarted("this processor has no instructions for it, or may not use them.")
        config = folder / "config.yaml"
        config.write_text(yaml.safe_dump(self._config))
        return Server(config, self._store or folder / "store", patience=900, precision=None)

    def check(self) -> None:
        """Refuse another precision than was asked for."""
        if self.precision not in ("auto", self.info["precision"]):
            raise NotStarted(f"asked for it, the service runs {self.runs_on}.")

    @property
    def store(self) -> Path:
        """The folder of its store, once it was started."""
        assert isinstance(self.running, Server)
        return self.running.store

    @property
    def info(self) -> dict[str, Any]:
        """What `/info` says of the model."""
        info: dict[str, Any] = self.ask(Request("GET", "/info"))["models"]["default"]
        return info

    @property
    def runs_on(self) -> str:
        """Backend, precision and streams, such as `torch fp32, 2 streams`."""
        info = self.info
        streams = info["streams"]
        return f"{info['backend']} {info['precision']}, {streams} stream{'s' if streams > 1 else ''}"

    @property
    def remark(self) -> str:
        """What it runs on."""
        return f"{self.name} ran {self.runs_on}."

    def embed_request(self, texts: Sequence[str]) -> Request:
        """Use OpenAI's route, base64; long texts are truncated."""
        body = {"model": "default", "input": list(texts), "encoding_format": "base64", "truncate": True}
        return Request("POST", "/v1/embeddings", json.dumps(body), len(texts))

    def json_request(self, texts: Sequence[str], **more: Any) -> Request:
        """Use `/embed`; long texts are truncated."""
        body = {"inputs": list(texts), "truncate": True, **more}
        return Request("POST", "/embed", json.dumps(body), len(texts))

    def vectors(self, texts: Sequence[str], pooling: str | None = None) -> Vectors:
        """Embed any number of texts through `/embed`, (texts, dim)."""
        requests = [self.json_request(texts[at : at + 256], pooling=pooling) for at in range(0, len(texts), 256)]
        return np.concatenate([np.array(self.ask(request), np.float32) for request in requests])

    def index(self, client: Client, documents: Sequence[Mapping[str, str]], *, each: int, clients: int) -> float:
        """Upsert the documents into a new collection."""
        http, path = self.running.http, "/collections/bench"
        http.delete(path)
        http.put(path).raise_for_status()
        requests = []
        for start in range(0, len(documents), each):
            some = documents[start : start + each]
            body = json.dumps({"documents": some, "truncate": True})
            requests.append(Request("POST", f"{path}/documents", body, len(some)))
        seconds = client.run(Load(self.running.port, requests, clients)).seconds
        assert self.ask(Request("GET", path))["count"] == len(documents)
        return seconds

    def search_request(self, query: str, k: int) -> Request:
        """Use the collection's `search`."""
        body = {"query": query, "k": k, "include": ["text"], "truncate": True}
        return Request("POST", "/collections/bench/search", json.dumps(body))


def millponds(model: Mapping[str, Any] | None = None) -> list[Millpond]:
    """Give Millpond at every precision that some machine runs."""
    return [Millpond(f"Millpond {precision}", model=model, precision=precision) for precision in PRECISIONS]


def millponds_in(field: Field) -> list[Millpond]:
    """Give those that run."""
    return [server for server in field.servers if isinstance(server, Millpond)]


def millpond(*words: str | Path) -> str:
    """Run a command of `millpond` and return what it printed on stdout."""
    command = [sys.executable, "-m", "service", *words]
    return subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True).stdout
