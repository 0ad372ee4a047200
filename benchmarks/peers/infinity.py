"""Infinity: `infinity_emb v2` with PyTorch, or with onnxruntime and int8, which is its best on a CPU.

Release 0.0.78 finds no ONNX file in a local folder unless the last `return` of `_list_all_repo_files` in its
transformer/utils_optimum.py becomes
`return [p.relative_to(model_name_or_path) for p in Path(model_name_or_path).glob("**/*")]`.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.encoder import minilm
from benchmarks.load import Request
from benchmarks.peers import MissingPeer, environment, versions_in
from benchmarks.report import progress
from benchmarks.servers import Target
from tests.support.servers import Launcher, environment_without_settings, free_port

FP32: Final = "Infinity torch fp32"
INT8: Final = "Infinity ONNX int8"

_VARIABLE: Final = "MILLPOND_INFINITY"
_QUIET: Final = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0"}


class Infinity(Target):
    """`infinity_emb v2` over the bundled model, with one of its engines."""

    def __init__(self, engine: str) -> None:
        super().__init__(engine)

    def launcher(self, folder: Path) -> Launcher:
        """Start it as its documentation has it, with nothing cached between requests."""
        program, port = environment(_VARIABLE, "infinity_emb") / "infinity_emb", free_port()
        model, engine, cwd = minilm(), "torch", folder
        if self.name == INT8:  # this engine finds an ONNX file only in the working directory
            model, engine, cwd = ".", "optimum", quantized_folder()
        command: list[str | Path] = [
            *(program, "v2", "--model-id", model, "--served-model-name", "m", "--engine", engine, "--device", "cpu"),
            # Its optimum engine does not read the folder's pooling: by default it takes the first token.
            *("--pooling-method", "mean", "--no-bettertransformer", "--no-vector-disk-cache"),
            *("--host", "127.0.0.1", "--port", str(port)),
        ]
        env = {**environment_without_settings(), **_QUIET}
        return Launcher(command, port, folder / "infinity.log", cwd=cwd, env=env, patience=120)

    @property
    def remark(self) -> str:
        """Its version and those below it."""
        packages = ("infinity-emb", "torch", "transformers", "onnxruntime")
        return f"Infinity's environment: {versions_in(infinity_python(), packages)}."

    def embed_request(self, texts: Sequence[str]) -> Request:
        """Use OpenAI's shape, base64. It truncates long texts by itself."""
        body = {"model": "m", "input": list(texts), "encoding_format": "base64"}
        return Request("POST", "/embeddings", json.dumps(body), len(texts))


def infinities(*engines: str) -> list[Infinity]:
    """Give Infinity with each of some engines; with all by default."""
    return [Infinity(engine) for engine in engines or (FP32, INT8)]


def infinity_python() -> Path:
    """Give the interpreter of Infinity's environment; raises `MissingPeer`."""
    return environment(_VARIABLE, "infinity_emb") / "python"


def quantized_folder() -> Path:
    """Give the bundled model with an int8 ONNX export beside it, made in Infinity's environment the first time.

    Raises:
        MissingPeer: that environment is not there, or lacks what an export needs.

    """
    python = infinity_python()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "millpond" / "benchmarks"
    made = cache / f"all-MiniLM-L6-v2-{versions_in(python, ['onnxruntime']).replace(' ', '-')}"
    if not made.exists():
        progress("exporting the model to int8 ONNX for Infinity")
        cache.mkdir(parents=True, exist_ok=True)
        script = Path(__file__).with_name("export_onnx.py")
        done = subprocess.run([python, script, minilm(), made], capture_output=True, text=True)
        if done.returncode:
            raise MissingPeer(f"the int8 ONNX export failed: {' '.join(done.stderr.split())[-400:]}")
    return made
