"""Which safetensors files an encoder is loaded from: the single one, or the shards that an index names."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any, Final

from service.checkpoint.declarations import read_json
from service.errors import CheckpointError

_SINGLE: Final = "model.safetensors"
_INDEX: Final = "model.safetensors.index.json"
_EXPLICIT: Final = "transformers_weights"
"""Key of config.json that names another file than these two."""
_LENGTH_BYTES: Final = 8
"""A safetensors file begins with the length of its header."""

_HEADS: Final = re.compile(
    r"(^|\.)(pooler|cls|lm_head|lm_loss|classifier|pre_classifier|score|predictions|mlm_head|qa_outputs"
    r"|(generator|discriminator)_predictions|vocab_(transform|layer_norm|projector))\."
)
"""Names of layers that follow an encoder for one task, and make none of its states."""
_TYPES: Final = re.compile(r"(^|\.)(token|task)_type_embeddings\.weight$")
"""Tables of which a single text reads the first row."""
_LAYERS_OF_ONE: Final = 1_000
"""Layers that may be computed with the same weights, as those of ALBERT are: many more than of any that is known."""
_POINTER: Final = b"version https://git-lfs"
"""What a file of Git LFS begins with until it is fetched."""

Summary = tuple[str, tuple[int, ...], str]
"""Type, shape and SHA-256 of a tensor."""


def weight_files(folder: Path, config: Mapping[str, Any]) -> list[Path]:
    """Return the files that transformers loads, by name; none where the folder has no safetensors of its own naming.

    Args:
        folder: the encoder's folder.
        config: its config.json.

    Raises:
        CheckpointError: an index is damaged or names a missing file, or there are two sets of weights that differ.
    """
    explicit = config.get(_EXPLICIT)
    if explicit is not None:
        return _named(folder, str(explicit))
    single, index = folder / _SINGLE, folder / _INDEX
    if not single.is_file():
        return _shards(index) if index.is_file() else []
    if index.is_file():
        _check_equal(single, index)
    return [single]


def check_whole(files: Iterable[Path]) -> None:
    """Read the headers of safetensors files.

    Raises:
        CheckpointError: a file is cut short, damaged, or stands for one that Git LFS has not fetched.
    """
    for path in files:
        _header(path)


def not_finite(
    files: Iterable[Path], config: Mapping[str, Any], vocabulary: int | None = None, *, heads: bool = False
) -> tuple[Path, str] | None:
    """Return the first tensor that holds NaN or infinity where a text may read it, as file and name, if there is one.

    Neither types of tokens but the first are read, nor rows of the vocabulary beyond the tokenizer's.

    Args:
        config: the encoder's config.json.
        vocabulary: one more than the highest id of a token.
        heads: whether layers that follow an encoder for one task are read too.
    """
    from safetensors import safe_open

    decoder = "decoder." if config.get("is_encoder_decoder") else None
    for path in files:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  # it is no mapping
                if _HEADS.search(name) and not heads:
                    continue
                if decoder and name.removeprefix("model.").startswith(decoder):
                    continue
                tensor = file.get_tensor(name)
                if _TYPES.search(name):
                    tensor = tensor[:1]
                elif tensor.ndim == 2 and len(tensor) == config.get("vocab_size"):
                    tensor = tensor[:vocabulary]
                if tensor.is_floating_point() and not tensor.float().isfinite().all():
                    return path, name
    return None


@dataclass(frozen=True, slots=True)
class Shape:
    """The type of a tensor's numbers, as safetensors calls it, and its sizes."""

    kind: str
    sizes: tuple[int, ...]


def shapes(path: Path) -> dict[str, Shape]:
    """Return what tensors a safetensors file holds, by its header.

    Raises:
        CheckpointError: the file is damaged.
    """
    return {name: Shape(entry["dtype"], tuple(entry["shape"])) for name, entry in _header(path)[0].items()}


def count(files: Iterable[Path]) -> int:
    """Return how many numbers safetensors files hold.

    Raises:
        CheckpointError: a file is damaged.
    """
    return sum(prod(entry["shape"]) for path in files for entry in _header(path)[0].values())


def check_layers(path: Path, config: Mapping[str, Any], files: Iterable[Path]) -> None:
    """Compare the layers that a config declares with the weights, which takes no layer to be made.

    Args:
        path: the config's file.
        config: what it says.
        files: the weights.

    Raises:
        CheckpointError: it declares more layers than there are weights; or a file is damaged.
    """
    tensors = sum(len(_header(file)[0]) for file in files)
    for key, layers in _layers(config):
        if layers > max(tensors, _LAYERS_OF_ONE):
            raise CheckpointError(
                f"{path}: {key} is {layers}, and the weights beside it are {tensors} tensors, fewer than layers, so "
                "the two are not of one model. Correct config.json, or get both anew."
            )


def _layers(config: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Yield the numbers of layers in a config and those within it, and their keys."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _layers(value)
        elif isinstance(value, int) and key.endswith(("layer", "layers")):
            yield key, value


def _named(folder: Path, name: str) -> list[Path]:
    """Return the files where config.json names one."""
    path = folder / name
    if name != path.name or not path.is_file() or not name.endswith((".safetensors", ".safetensors.index.json")):
        raise CheckpointError(
            f"{folder / 'config.json'}: {_EXPLICIT} is {name!r}, which is no safetensors file of this folder. "
            f"Take the key out, and name the weights {_SINGLE}."
        )
    return _shards(path) if name.endswith(".json") else [path]


def _shards(index: Path) -> list[Path]:
    names = (read_json(index) or {}).get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise CheckpointError(f"{index}: has no weight_map from weights to files. Get the folder anew.")
    files = [index.parent / name for name in sorted(set(names.values()))]
    for path in files:
        if path.parent != index.parent:
            raise CheckpointError(f"{index}: names {str(path)!r}, which is not beside it. Get the folder anew.")
        if not path.is_file():
            raise CheckpointError(
                f"{index}: names {path.name}, and there is no such file. Get that file, or the whole folder anew."
            )
    return files


def _check_equal(single: Path, index: Path) -> None:
    """Refuse two sets of weights unless they are the same, in which case it does not matter which is loaded."""
    remedy = f"{single.name} is the one that would be loaded: delete the one not meant, and its index."
    try:
        one, other = _summaries([single]), _summaries(_shards(index))
    except CheckpointError as error:
        raise CheckpointError(f"{error.detail} Beside it is {single.name}. Keep one of the two.") from None
    different = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
    if different:
        raise CheckpointError(
            f"{single} and {index.name} beside it hold weights that differ, such as {different[0]!r} "
            f"({len(different)} of {len(one.keys() | other.keys())}). {remedy}"
        )


def _summaries(files: Iterable[Path]) -> dict[str, Summary]:
    """Return what every tensor of safetensors files is, by name.

    Raises:
        CheckpointError: a file is damaged.
    """
    found: dict[str, Summary] = {}
    for path in files:
        status = path.stat()
        found |= _of_file(path, status.st_size, status.st_mtime_ns)
    return found


@lru_cache(maxsize=64)
def _of_file(path: Path, size: int, modified: int) -> dict[str, Summary]:
    header, start = _header(path)
    found = {}
    with path.open("rb") as file:
        for name, entry in header.items():
            first, last = entry["data_offsets"]
            file.seek(start + first)
            digest = hashlib.sha256(file.read(last - first)).hexdigest()
            found[name] = (str(entry["dtype"]), tuple(entry["shape"]), digest)
    return found


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """Return the header of a safetensors file without its metadata, and where the numbers begin."""
    try:
        with path.open("rb") as file:
            if file.read(len(_POINTER)) == _POINTER:
                raise CheckpointError(
                    f"{path}: is a pointer of Git LFS, not the file itself. Run `git lfs pull` in its repository, or "
                    "get the folder from the hub."
                )
            file.seek(0)
            start = _LENGTH_BYTES + int.from_bytes(file.read(_LENGTH_BYTES), "little")
            size = path.stat().st_size
            header = json.loads(file.read(start - _LENGTH_BYTES)) if start <= size else {}
        header.pop("__metadata__", None)
        whole = max(entry["data_offsets"][1] for entry in header.values()) + start == size
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise CheckpointError(
            f"{path}: its weights cannot be loaded; it is damaged, cut short or cannot be read. Get it anew."
        )
    return header, start
