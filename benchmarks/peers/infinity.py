"""Infinity: `infinity_emb v2` with PyTorch, or with onnxruntime and int8, which is its best on a CPU."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Literal

import numpy as np
import orjson
from numpy.typing import NDArray

from benchmarks.load import Request
from benchmarks.loop import bundled
from benchmarks.machine import versions_in
from benchmarks.options import progress
from benchmarks.peers.environment import MissingPeer, environment
from benchmarks.servers import NotStarted, Server, openai_vectors

VARIABLE: Final = "MILLPOND_INFINITY"
Engine = Literal["Infinity torch fp32", "Infinity ONNX int8"]
FP32: Final = "Infinity torch fp32"
INT8: Final = "Infinity ONNX int8"

_TAKES_FOLDERS: Final = """
import sys
from infinity_emb.transformer.utils_optimum import _list_all_repo_files
sys.exit(3 if any(path.is_absolute() for path in _list_all_repo_files(sys.argv[1])) else 0)
"""


class Infinity(Server):
    """`infinity_emb v2` over a model folder; without `quantized`, the bundled one on PyTorch.

    Raises:
        MissingPeer: it is not installed where `MILLPOND_INFINITY` says.

    """

    patience = 120.0

    def __init__(self, folder: Path, *, quantized: Path | None = None) -> None:
        super().__init__(INT8 if quantized else FP32, folder)
        self._bin = environment(VARIABLE, "infinity_emb")
        self._engine: Literal["optimum", "torch"] = "optimum" if quantized else "torch"
        self._model = str(quantized) if quantized else bundled()

    @property
    def versions(self) -> str:
        """Its version and those below it."""
        return versions_in(self._bin / "python", ("infinity-emb", "torch", "transformers", "onnxruntime"))

    def command(self) -> Sequence[str | Path]:
        """As its documentation has it, with nothing cached between requests."""
        model = ["--model-id", self._model, "--served-model-name", "m", "--engine", self._engine, "--device", "cpu"]
        # Its optimum engine does not read the folder's pooling: unless told, it takes the first token.
        model += ["--pooling-method", "mean"]
        return [
            *(self._bin / "infinity_emb", "v2", *model, "--no-bettertransformer", "--no-vector-disk-cache"),
            *("--host", "127.0.0.1", "--port", str(self.port)),
        ]

    def environment(self) -> Mapping[str, str]:
        """It asks no hub and tells nobody that it runs."""
        quiet = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0"}
        return {**super().environment(), **quiet}

    def embed_request(self, texts: Sequence[str]) -> Request:
        """OpenAI's shape, base64. It cuts long texts by itself."""
        body = {"model": "m", "input": list(texts), "encoding_format": "base64"}
        return Request("POST", "/embeddings", json.dumps(body), len(texts))

    def vectors(self, answer: bytes) -> NDArray[np.float32]:
        """Vectors (texts, dim)."""
        return openai_vectors(orjson.loads(answer)["data"])


def infinities(stack: ExitStack, folder: Path, engines: Sequence[Engine]) -> tuple[list[Infinity], list[str]]:
    """Infinity running with each of some engines, and notes on those that are left out."""
    servers: list[Infinity] = []
    notes: list[str] = []
    for engine in engines:
        try:
            server = Infinity(folder, quantized=quantized_folder() if engine == INT8 else None)
            progress(f"starting {engine}")
            servers.append(stack.enter_context(server))
        except (MissingPeer, NotStarted) as error:
            notes.append(f"{engine} is left out: {error}")
    return servers, notes


def quantized_folder() -> Path:
    """The bundled model with an int8 ONNX export beside it, made with Infinity's environment the first time.

    Raises:
        MissingPeer: that environment is not there, lacks what an export needs, or has a release that takes no folder.

    """
    python = environment(VARIABLE, "infinity_emb") / "python"
    checked = subprocess.run([python, "-c", _TAKES_FOLDERS, bundled()], capture_output=True, text=True)
    if checked.returncode == 3:
        raise MissingPeer(
            f"the Infinity in {VARIABLE} finds no ONNX file in a local folder. Mend one line of its "
            "transformer/utils_optimum.py: the last `return` of _list_all_repo_files becomes "
            '`return [p.relative_to(model_name_or_path) for p in Path(model_name_or_path).glob("**/*")]`.'
        )
    if checked.returncode:
        raise MissingPeer(
            f"the Infinity in {VARIABLE} has no optimum engine: {' '.join(checked.stderr.split())[-300:]}"
        )
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "millpond" / "benchmarks"
    made = cache / f"all-MiniLM-L6-v2-{versions_in(python, ['onnxruntime']).replace(' ', '-')}"
    if not made.exists():
        progress("exporting the model to int8 ONNX for Infinity")
        cache.mkdir(parents=True, exist_ok=True)
        script = Path(__file__).with_name("export_onnx.py")
        done = subprocess.run([python, script, bundled(), made], capture_output=True, text=True)
        if done.returncode:
            raise MissingPeer(f"the int8 ONNX export failed: {' '.join(done.stderr.split())[-400:]}")
    return made
