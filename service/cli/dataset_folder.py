"""A folder that `millpond embed-dataset` writes: numbered Parquet files with vectors, and a manifest of them."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Final
from uuid import uuid4

from service.cli.console import Failure
from service.cli.streams import needed
from service.durable import sync_folder

MANIFEST: Final = "millpond-dataset.json"
VECTOR: Final = "vector"
"""The column of vectors."""
_FORMAT: Final = "millpond dataset 1"
_KEY: Final = b"millpond"
"""Of a block's file, where its metadata have what `About` says, as JSON."""
_PARTIAL: Final = ".partial"
_BLOCK: Final = re.compile(r"block-(\d{6,})\.parquet")
_OURS: Final = re.compile(rf"block-\d{{6,}}\.(parquet|rejects\.jsonl)|{MANIFEST}|\.lock|\..*\{_PARTIAL}")


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file of the input: its path below that, the bytes it has (decompressed), their digest, and its rows."""

    name: str
    bytes: int
    digest: str
    rows: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the vectors of a folder are made of. Equal ones give equal vectors, row for row.

    `columns` are those of the input that each row has. `block_rows` are the most rows of a block.
    """

    fingerprint: str
    model: str
    pooling: str
    dimension: int
    prompt: str
    text_column: str
    columns: tuple[str, ...]
    block_rows: int
    files: tuple[InputFile, ...]
    blocks: int

    @property
    def digest(self) -> str:
        """Sixteen hex digits over all of it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    def about(self, block: int) -> About:
        """Return what the file of a block says of itself."""
        return About(self.fingerprint, self.model, self.pooling, self.text_column, self.digest, block)


@dataclass(frozen=True, slots=True)
class About:
    """What the file of a block says of its vectors, in its metadata."""

    fingerprint: str
    model: str
    pooling: str
    text_column: str
    dataset: str
    block: int

    def to_metadata(self) -> dict[bytes, bytes]:
        """Return it as the metadata of a Parquet file."""
        return {_KEY: json.dumps(asdict(self)).encode()}

    @classmethod
    def of(cls, metadata: Mapping[bytes, bytes] | None) -> About | None:
        """Return what the metadata of a Parquet file say; None where another program wrote it."""
        try:
            return cls(**json.loads((metadata or {})[_KEY]))
        except (KeyError, ValueError, TypeError):
            return None


def block_name(number: int) -> str:
    """Return the name of the file of a block."""
    return f"block-{number:06}.parquet"


def rejects_name(number: int) -> str:
    """Return the name of the file of what a block leaves out."""
    return f"block-{number:06}.rejects.jsonl"


def read_manifest(folder: Path) -> Manifest | None:
    """Return the manifest of a folder, None where it has none; raises `Failure` where that is no manifest."""
    path = folder / MANIFEST
    try:
        values = json.loads(path.read_bytes())
        if values.pop("format") != _FORMAT:
            raise ValueError
        files = tuple(InputFile(**file) for file in values.pop("files"))
        return Manifest(**values | {"files": files, "columns": tuple(values["columns"])})
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}.", 2) from None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise Failure(
            f"{path} is no manifest that `millpond embed-dataset` has written, or one of another release. Name "
            "another folder.",
            2,
        ) from None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of a folder; raises `OSError`."""
    with written(folder / MANIFEST) as file:
        file.write(json.dumps({"format": _FORMAT, **asdict(manifest)}, indent=2).encode() + b"\n")


@contextmanager
def written(path: Path) -> Iterator[IO[bytes]]:
    """Write a file under a name of its own, which becomes `path` once it is whole and on disk; raises `OSError`."""
    partial = path.with_name(f".{path.name}.{uuid4().hex[:8]}{_PARTIAL}")
    try:
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
        sync_folder(path.parent)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def remove_partial(folder: Path) -> None:
    """Delete what was begun under a name of its own and never finished."""
    for path in folder.glob(f".*{_PARTIAL}"):
        path.unlink(missing_ok=True)


def foreign_files(folder: Path) -> list[str]:
    """Return the names of what is in a folder and no file of a dataset."""
    return sorted(path.name for path in folder.iterdir() if not _OURS.fullmatch(path.name))


def blocks_there(folder: Path, manifest: Manifest) -> dict[int, int]:
    """Return how many rows each block of a dataset has that is written, by its number.

    Raises:
        Failure: a file is of another dataset, or damaged.
    """
    return {number: rows_of(folder, manifest, number) for number in written_blocks(folder)}


def written_blocks(folder: Path) -> list[int]:
    """Return the numbers of the blocks whose files are there."""
    found = (_BLOCK.fullmatch(path.name) for path in folder.iterdir())
    return sorted(int(match[1]) for match in found if match)


def rows_of(folder: Path, manifest: Manifest, number: int) -> int:
    """Return how many rows the file of a block has; raises `Failure` as `blocks_there` does."""
    path = folder / block_name(number)
    parquet = needed("pyarrow.parquet", "pyarrow", path)
    try:
        footer = parquet.read_metadata(path)
    except (OSError, ValueError) as error:
        raise Failure(f"{path} is damaged ({error}). Delete it, and run the same command again.", 2) from None
    if About.of(footer.metadata) != manifest.about(number):
        raise Failure(
            f"{path} is not what {folder / MANIFEST} tells of: it has vectors of another input, model or block. Name "
            "another folder.",
            2,
        )
    return int(footer.num_rows)


def whole_dataset(folder: Path, manifest: Manifest) -> list[Path]:
    """Return the files of a dataset, in order; raises `Failure` where one is missing."""
    files = [folder / block_name(number) for number in range(manifest.blocks)]
    missing = [file.name for file in files if not file.exists()]
    if missing:
        raise Failure(
            f"{folder} is not complete: {len(missing)} of {len(files)} blocks are missing, {missing[0]} the first. "
            "Run the `millpond embed-dataset` that began it again.",
            2,
        )
    return files
