"""A running service to measure, and the client that loads it."""

from __future__ import annotations

import asyncio
import platform
import time
from base64 import b64decode
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
from numpy.typing import NDArray

ROOT = Path(__file__).parents[1]


def machine() -> str:
    """The processor and the versions that a measurement depends on."""
    model = next(
        (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    cores = sum(line.startswith("processor") for line in _lines("/proc/cpuinfo"))
    packages = ("torch", "transformers", "sentence-transformers", "faiss-cpu")
    return f"{model}, {cores} cores; Python {platform.python_version()}, " + ", ".join(
        f"{name} {version(name)}" for name in packages
    )


def resident_mb(pid: int) -> float:
    """Resident memory of a process, in MB."""
    line = next(line for line in _lines(f"/proc/{pid}/status") if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1000


def embed(url: str, texts: Sequence[str], *, model: str, truncate: bool = False, batch: int = 256) -> NDArray[Any]:
    """Vectors of texts through `/embed`, some hundred a request."""
    with httpx.Client(base_url=url, timeout=600) as client:
        parts = []
        for start in range(0, len(texts), batch):
            body = {"inputs": texts[start : start + batch], "model": model, "truncate": truncate}
            response = client.post("/embed", json=body)
            response.raise_for_status()
            parts.append(np.array(orjson.loads(response.content), dtype=np.float32))
    return np.concatenate(parts)


def openai_load(
    url: str, texts: Sequence[str], *, model: str, clients: int, each: int, truncate: bool = False
) -> float:
    """Texts a second through `/v1/embeddings` with base64, by `clients` at once sending `each` texts a request."""
    bodies = [
        orjson.dumps(
            {
                "model": model,
                "input": texts[start : start + each],
                "encoding_format": "base64",
                **({"truncate": True} if truncate else {}),
            }
        )
        for start in range(0, len(texts), each)
    ]

    async def run() -> float:
        waiting = iter(bodies)
        limits = httpx.Limits(max_connections=clients)
        async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as client:

            async def one() -> None:
                for body in waiting:
                    response = await client.post(
                        "/v1/embeddings", content=body, headers={"content-type": "application/json"}
                    )
                    response.raise_for_status()
                    for item in orjson.loads(response.content)["data"]:
                        np.frombuffer(b64decode(item["embedding"]), dtype=np.float32)

            start = time.perf_counter()
            await asyncio.gather(*(one() for _ in range(clients)))
            return len(texts) / (time.perf_counter() - start)

    return asyncio.run(run())


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
