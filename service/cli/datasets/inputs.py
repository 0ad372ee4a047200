"""The input of a dataset: a file or the files of a folder, in blocks of rows that are numbered through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from service.cli.console import Failure
from service.cli.dataset_folder import VECTOR, InputFile
from service.cli.datasets import lines, parquet
from service.cli.datasets.base import Advance, Column, Extent, Reader, Rows, changed
from service.cli.sources.folder import found
from service.errors import did_you_mean

_WHAT: Final = (
    "Give a file of JSON lines (.jsonl or .ndjson, also with .gz or .zst) or Parquet, or a folder of files of one "
    "of the two."
)


@dataclass(frozen=True, slots=True)
class Block:
    """Rows of one file of the input that are embedded together: the block's number, which file, and where in it."""

    number: int
    file: int
    extent: Extent


@dataclass(frozen=True, slots=True)
class Input:
    """An input that was read once. Nothing in it is open, so that it can be sent to other machines.

    `stats` are the size and the time of change of each file, as they were before it was read.
    """

    paths: tuple[Path, ...]
    stats: tuple[tuple[int, int], ...]
    files: tuple[InputFile, ...]
    blocks: tuple[Block, ...]
    columns: tuple[Column, ...]
    text_column: str

    @property
    def rows(self) -> int:
        """Rows of all files."""
        return sum(file.rows for file in self.files)


def input_files(root: Path) -> dict[str, Path]:
    """Return the files of an input by their names, in order; raises `Failure` where there are none of one format."""
    if root.is_dir():
        names = sorted(found(root, (*lines.ENDINGS, *parquet.ENDINGS)))
        if not names:
            raise Failure(f"{root} holds no such file. {_WHAT}", 2)
        tables = [name for name in names if _is_parquet(name)]
        if 0 < len(tables) < len(names):
            other = next(name for name in names if not _is_parquet(name))
            raise Failure(f"{root} holds both Parquet ({tables[0]}) and JSON lines ({other}). {_WHAT}", 2)
        return {name: root / name for name in names}
    try:
        with root.open("rb"):
            pass
    except OSError as error:
        raise Failure(f"{root}: {error.strerror}. {_WHAT}", 2) from None
    if not root.name.lower().endswith((*lines.ENDINGS, *parquet.ENDINGS)):
        raise Failure(f"{root} has another ending. {_WHAT}", 2)
    return {root.name: root}


def scan(root: Path, text_column: str, columns: Sequence[str] | None, block_rows: int, advance: Advance) -> Input:
    """Read an input once, and cut it into blocks.

    Args:
        root: a file or a folder.
        text_column: which column is embedded.
        columns: those that are kept; all where None.
        block_rows: the most rows of a block.
        advance: called with further bytes that are read.

    Raises:
        Failure: it cannot be read, lacks a column, or has none but `vector`.
    """
    files = input_files(root)
    module = parquet if _is_parquet(next(iter(files))) else lines
    stats, scans = [], []
    for name, path in files.items():
        stats.append(_stat(path))
        scans.append(module.scan(path, name, block_rows, advance))
    if not any(each.file.rows for each in scans):
        raise Failure(f"{root} holds no rows.", 2)
    known = (
        parquet.columns_of(root, scans, text_column) if module is parquet else lines.columns_of(scans, text_column)
    )
    if not known and module is lines:
        first = next(path for path, each in zip(files.values(), scans, strict=True) if each.file.rows)
        raise Failure(lines.without_objects(first), 2)
    for name, option in ((text_column, "--text-column"), *((name, "--columns") for name in columns or ())):
        if name not in known:
            near = did_you_mean(name, known)
            raise Failure(f"{root} has no column {name!r} ({option}).{near} It has {', '.join(known) or 'none'}.", 2)
    kept = list(dict.fromkeys(known if columns is None else columns))
    if VECTOR in kept:
        raise Failure(
            f"{root} has a column {VECTOR!r} already, which is what the new vectors are called. Name the columns "
            "that are kept with --columns.",
            2,
        )
    extents = [(file, extent) for file, each in enumerate(scans) for extent in each.extents]
    return Input(
        tuple(path.absolute() for path in files.values()),
        tuple(stats),
        tuple(each.file for each in scans),
        tuple(Block(number, file, extent) for number, (file, extent) in enumerate(extents)),
        tuple(known[name] for name in kept),
        text_column,
    )


class Blocks:
    """Reads blocks of an input, one file of which is open at a time."""

    def __init__(self, source: Input) -> None:
        self._source = source
        self._file: int | None = None
        self._reader: Reader | None = None

    def read(self, block: Block) -> Rows:
        """Read a block; raises `Failure` where its file is damaged, gone, or not as it was."""
        path = self._source.paths[block.file]
        if _stat(path) != self._source.stats[block.file]:
            raise changed(path)
        if self._reader is None or self._file != block.file:
            self.close()
            reader = parquet.ParquetReader if _is_parquet(path.name) else lines.LineReader
            self._reader = reader(path, self._source.columns, self._source.text_column)
            self._file = block.file
        return self._reader.read(block.extent)

    def close(self) -> None:
        """Close the file that is open."""
        if self._reader is not None:
            self._reader.close()
        self._reader = None


def _stat(path: Path) -> tuple[int, int]:
    try:
        about = path.stat()
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}.", 2) from None
    return about.st_size, about.st_mtime_ns


def _is_parquet(name: str) -> bool:
    return name.lower().endswith(parquet.ENDINGS)
