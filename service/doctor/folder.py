"""Opens a model folder for examination, even if some of its modules cannot be followed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from service.checkpoint import Checkpoint, Routes, UnknownModule, read_model
from service.config import make_config
from service.embedding.embedder import Embedder
from service.embedding.models import Models
from service.environment import of_runtime


@contextmanager
def opened(folder: Path) -> Iterator[tuple[Embedder, list[UnknownModule]]]:
    """Load a folder as a config that only names it would, in float32; yields the model and the modules left out.

    A folder that declares no pooling gets the one that suits its kind of encoder. Runtime settings in the environment
    apply.

    Raises:
        CheckpointError, ConfigError: the folder cannot be served at all.
    """
    with TemporaryDirectory(prefix="millpond-") as temporary:
        checkpoint, unknown = _read(folder, Path(temporary))
        name, pooling = str(folder), "declared"
        if isinstance(checkpoint, Checkpoint):
            name = checkpoint.name
            pooling = "declared" if checkpoint.pooling else "weighted_mean" if checkpoint.causal else "mean"
        settings = make_config(
            {"models": {"default": {"encoder": name, "pooling": pooling}}},
            "the examination",
            env=of_runtime(os.environ),
            overrides={"runtime.precision": "fp32"},
        )
        with Models(settings).get() as embedder:
            yield embedder, unknown


def _read(folder: Path, copy: Path) -> tuple[Checkpoint | Routes[Checkpoint], list[UnknownModule]]:
    """Read the folder's checkpoint; if it has unknown modules, that of a copy without them."""
    unknown: list[UnknownModule] = []
    while True:
        try:
            return read_model(str(copy if unknown else folder)), unknown
        except UnknownModule as error:
            if not unknown:
                for item in folder.iterdir():
                    (copy / item.name).symlink_to(item.resolve())
            unknown.append(error)
            modules = copy / "modules.json"
            listed = json.loads(modules.read_text(encoding="utf-8"))
            del listed[error.place]
            modules.unlink()  # a link to the folder's, or what was written here before
            modules.write_text(json.dumps(listed), encoding="utf-8")
