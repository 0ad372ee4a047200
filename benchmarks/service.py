"""Millpond as a server to measure."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import orjson
import yaml
from numpy.typing import NDArray

from benchmarks.load import ROOT, Request
from benchmarks.machine import machine
from benchmarks.options import progress
from benchmarks.servers import NotStarted, Server, openai_vectors
from service.encoder.runtimes.machine import has_native_bf16

__all__ = ["PRECISIONS", "ROOT", "Millpond", "embed", "machine", "runnable"]

PRECISIONS: Final = ("fp32", "bf16", "int8")
MODELS: Final = {"default": {"encoder": "bundled/all-MiniLM-L6-v2"}}


class Millpond(Server):
    """`millpond serve` with a config made for the occasion.

    Args:
        name: what tables call it.
        folder: where config, store and log go.
        runtime: the config's section; its defaults where it is empty.
        models: the config's section; the bundled model as it declares itself by default.

    """

    ready = "/ready"
    patience = 900.0  # the first start at a precision converts the model

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        runtime: Mapping[str, Any] | None = None,
        models: Mapping[str, Any] = MODELS,
    ) -> None:
        super().__init__(name, folder)
        self.folder = ROOT  # where relative paths of a config count from, and `service` is found
        self.config = folder / f"{self.port}.yaml"
        self._store = folder / f"{self.port}-store"
        self.config.write_text(yaml.safe_dump({"models": dict(models), "runtime": dict(runtime or {})}))

    def command(self) -> Sequence[str | Path]:
        """`millpond serve`."""
        serve = [sys.executable, "-m", "service", "serve", "--config", self.config, "--store", self._store]
        return [*serve, "--host", "127.0.0.1", "--port", str(self.port)]

    def embed_request(self, texts: Sequence[str]) -> Request:
        """OpenAI's route, base64, long texts cut."""
        body = {"model": "default", "input": list(texts), "encoding_format": "base64", "truncate": True}
        return Request("POST", "/v1/embeddings", json.dumps(body), len(texts))

    def vectors(self, answer: bytes) -> NDArray[np.float32]:
        """Vectors (texts, dim)."""
        return openai_vectors(orjson.loads(answer)["data"])

    @property
    def info(self) -> dict[str, Any]:
        """What `/info` says of the default model."""
        found = orjson.loads(self.ask("GET", "/info")[1])
        model: dict[str, Any] = found["models"][found["default_model"]]
        return model

    @property
    def runs_on(self) -> str:
        """Backend, precision and streams, such as `torch fp32, 2 streams`."""
        info = self.info
        streams = info["streams"]
        return f"{info['backend']} {info['precision']}, {streams} stream{'s' if streams > 1 else ''}"


def runnable(
    stack: ExitStack, folder: Path, *, models: Mapping[str, Any] = MODELS
) -> tuple[dict[str, Millpond], list[str]]:
    """Start Millpond once for each precision that this machine can run.

    Args:
        stack: ends them.
        folder: where configs, stores and logs go.
        models: the config's section.

    Returns:
        The servers by precision, and a note for each that is left out.

    """
    servers, notes = {}, []
    for precision in PRECISIONS:
        if precision == "bf16" and not has_native_bf16():
            notes.append("Millpond bf16 is left out: this processor has no instructions for it.")
            continue
        progress(f"starting Millpond {precision}")
        try:
            with ExitStack() as unless_fit:
                server = Millpond(f"Millpond {precision}", folder, runtime={"precision": precision}, models=models)
                unless_fit.enter_context(server)
                if server.info["precision"] == precision:
                    servers[precision] = server
                    stack.push(unless_fit.pop_all())
                else:
                    notes.append(
                        f"Millpond {precision} is left out: asked for it, the service runs {server.runs_on}."
                    )
        except NotStarted as error:
            notes.append(f"Millpond {precision} is left out: {error}")
    if not servers:
        raise SystemExit("\n".join(["Millpond starts at no precision:", *notes]))
    return servers, notes


def embed(
    url: str,
    texts: Sequence[str],
    *,
    model: str,
    pooling: str | None = None,
    truncate: bool = False,
    batch: int = 256,
) -> NDArray[Any]:
    """Vectors of texts through `/embed`, some hundred a request."""
    with httpx.Client(base_url=url, timeout=600) as client:
        parts = []
        for start in range(0, len(texts), batch):
            body = {"inputs": texts[start : start + batch], "model": model, "pooling": pooling, "truncate": truncate}
            response = client.post("/embed", json=body)
            response.raise_for_status()
            parts.append(np.array(orjson.loads(response.content), dtype=np.float32))
    return np.concatenate(parts)
