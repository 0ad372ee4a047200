"""Writes a checkpoint with a fitted pooler, as a folder that both sentence-transformers and Millpond load."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors.numpy import save_file

from pooling import Pooler
from service.checkpoint import HUB_FILES, LEARNED_POOLING, LEARNED_POOLINGS, TRANSFORMER_CONFIGS, Checkpoint
from service.errors import ConfigError

POOLER: Final = "pooler"
"""The subfolder of the fitted pooler."""
LAYERS: Final = "layers"
"""The subfolder of fitted weights of layers."""
_LAYERS: Final = "WeightedLayerPooling"
_TRANSFORMER: Final = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
_MODULES: Final = "modules.json"
_MODEL_CONFIG: Final = "config_sentence_transformers.json"
_LIMIT: Final = "model_max_length"


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a draft folder that is renamed to `path` if the block succeeds, and removed if it fails.

    Raises:
        ConfigError: `path` exists and is not empty, or cannot be created.
    """
    whole = path.resolve()
    draft = whole.with_name(f".{whole.name}.part")
    if whole.exists() and (not whole.is_dir() or any(whole.iterdir())):
        raise ConfigError(f"--output {path}: exists already; name a new folder, or remove it.")
    try:
        shutil.rmtree(draft, ignore_errors=True)  # left by a killed process
        with _writing(path):
            draft.mkdir(parents=True)
        yield draft
        with _writing(path):
            draft.rename(whole)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(f"--output {path}: cannot be made ({error.strerror}).") from None


def save(
    folder: Path, checkpoint: Checkpoint, pooler: Pooler, max_tokens: int, layers: Sequence[float] | None = None
) -> None:
    """Write the checkpoint to an empty folder, with `pooler` instead of its own pooling.

    Prompts and the modules that follow pooling are kept. The encoder's weights are hard-linked if the file system
    allows, so that they take no further space, and copied otherwise.

    Args:
        folder: to write to.
        checkpoint: to start from; a plain Hugging Face encoder gets pooling as its only further module.
        pooler: the fitted pooler.
        max_tokens: the longest text that it was fitted with.
        layers: fitted weights of all layers, to pool their mean; by default what the checkpoint pools.

    Raises:
        ConfigError: the folder cannot be written to.
    """
    source, transformer = checkpoint.folder, folder / checkpoint.transformer.relative_to(checkpoint.folder)
    modules = _modules(checkpoint)
    if layers is not None:
        kept = [module for module in modules[1:] if not _is_of(_LAYERS, module)]
        modules = _numbered([modules[0], {"path": LAYERS, "type": f"sentence_transformers.models.{_LAYERS}"}, *kept])
    with _writing(folder):
        _copy(checkpoint.transformer, transformer)
        for module in modules:
            if module["type"] not in LEARNED_POOLINGS and module["path"] != LAYERS:
                _copy(source / module["path"], folder / module["path"])
        given = (name for name in TRANSFORMER_CONFIGS if (transformer / name).exists())
        settings = transformer / next(given, TRANSFORMER_CONFIGS[0])
        _limit(settings, max_tokens)
        if layers is not None:
            _save_layers(folder / LAYERS, layers, pooler.dim)
            _ask_for_layers(settings)
        if (source / _MODEL_CONFIG).exists():
            shutil.copyfile(source / _MODEL_CONFIG, folder / _MODEL_CONFIG)
        (folder / _MODULES).write_text(json.dumps(modules, indent=2) + "\n")
        pooler.save(folder / POOLER)
        _edit(folder / POOLER / "config.json", include_prompt=checkpoint.include_prompt)


def _modules(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    """Return the checkpoint's modules with its pooling replaced by the fitted one."""
    path = checkpoint.folder / _MODULES
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else [_TRANSFORMER]
    index = next((index for index, module in enumerate(found) if _is_pooling(module)), 1)
    fitted = {"idx": index, "name": str(index), "path": POOLER, "type": LEARNED_POOLING}
    return [*found[:index], fitted, *found[index + 1 :]]


def _numbered(modules: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [module | {"idx": index, "name": str(index)} for index, module in enumerate(modules)]


def _is_pooling(module: dict[str, Any]) -> bool:
    return _is_of("Pooling", module) or module["type"] in LEARNED_POOLINGS


def _is_of(kind: str, module: dict[str, Any]) -> bool:
    return str(module["type"]).rpartition(".")[2] == kind


def _save_layers(folder: Path, weights: Sequence[float], dim: int) -> None:
    """Write a WeightedLayerPooling of all layers, under the name that every release has for the size of a state."""
    folder.mkdir()
    save_file({"layer_weights": np.array(weights, np.float32)}, folder / "model.safetensors")
    _edit(folder / "config.json", word_embedding_dimension=dim, layer_start=0, num_hidden_layers=len(weights) - 1)


def _ask_for_layers(path: Path) -> None:
    """Have the encoder asked for the states of all layers, without which WeightedLayerPooling is passed over."""
    values = json.loads(path.read_text(encoding="utf-8"))
    key = "config_kwargs" if "config_kwargs" in values else "config_args"  # the latter is read by every release
    _edit(path, **{key: (values.get(key) or {}) | {"output_hidden_states": True}})


def _copy(source: Path, folder: Path) -> None:
    """Copy the files of a module, without subfolders."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in {file for pattern in HUB_FILES for file in source.glob(pattern) if file.is_file()}:
        if file.name == _MODULES or (folder / file.name).exists():
            continue
        if file.suffix == ".safetensors":
            _link(file.resolve(), folder / file.name)
        else:
            shutil.copyfile(file, folder / file.name)


def _link(file: Path, target: Path) -> None:
    try:
        os.link(file, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(file, target)


def _limit(path: Path, max_tokens: int) -> None:
    """Write the longest text to where it is read: an argument of the tokenizer goes before `max_seq_length`."""
    values = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    arguments = {key: values.get(key) or {} for key in ("tokenizer_args", "processor_kwargs")}
    changes = {key: given | {_LIMIT: max_tokens} for key, given in arguments.items() if _LIMIT in given}
    calls = values.get("processing_kwargs") or {}
    if "max_length" in calls.get("text", {}):
        changes["processing_kwargs"] = calls | {"text": calls["text"] | {"max_length": max_tokens}}
    _edit(path, max_seq_length=max_tokens, **changes)


def _edit(path: Path, **changes: Any) -> None:
    values = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(values | changes, indent=2) + "\n", encoding="utf-8")
