"""The formats, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from service.cli.console import Failure
from service.cli.dataset_folder import read_manifest
from service.cli.sources.base import Source
from service.cli.sources.dataset import Dataset
from service.cli.sources.folder import Folder
from service.cli.sources.lines import JSONLines
from service.cli.sources.parquet import Parquet
from service.cli.sources.table import Table
from service.cli.streams import ENDINGS

_FORMATS: Final[dict[str, Callable[[Path], Source]]] = {".csv": Table, ".tsv": Table, ".parquet": Parquet}
"""Formats by how a name ends, an ending such as .gz aside; all others are JSON lines."""
_CORPORA: Final = ("corpus.jsonl", *(f"corpus.jsonl{ending}" for ending in ENDINGS))
_WHAT: Final = (
    "Give a file of JSON lines, CSV, TSV or Parquet, a BEIR folder, which holds a corpus.jsonl, a folder of "
    "`millpond embed-dataset`, or one with .txt or .md files."
)


def open_source(path: Path) -> Source:
    """Return the source of documents that a path is; raises `Failure` if it cannot be read."""
    if path.is_dir() and (manifest := read_manifest(path)) is not None:
        return Dataset(path, manifest)
    if path.is_dir():
        corpus = next((path / name for name in _CORPORA if (path / name).exists()), None)
        if corpus is None:
            folder = Folder(path)
            if not folder.files:
                raise Failure(f"{path / _CORPORA[0]}: No such file or directory. {_WHAT}", 2)
            return folder
        path = corpus
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}. {_WHAT}", 2) from None
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in ENDINGS]
    return _FORMATS.get(suffixes[-1] if suffixes else "", JSONLines)(path)
