"""Snapshots: a graph, its keys and its vectors in one file, which is checked before anything is made of it.

A header of fixed size, then the vectors, the keys and what FAISS writes, each with a checksum. The file is written
under another name, and has its own only once it is whole and on the disk.
"""

from __future__ import annotations

import json
import os
import secrets
import tempfile
import zlib
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import faiss as _typed_faiss
import numpy as np

from service.arrays import Keys, Vectors
from service.index.base import DamagedSnapshot
from service.index.graph import Graph
from service.index.vectorfile import BLOCK, VectorFile
from service.similarity import Similarity

faiss: Any = _typed_faiss

SUFFIX: Final = ".index"
_PARTIAL: Final = ".partial"
_MAGIC: Final = b"millpond index 1\n"
_HEADER: Final = 4096


class Draft:
    """A snapshot that is being written, to which vectors are appended; without a folder it never gets a name."""

    def __init__(self, folder: Path | None, dim: int) -> None:
        self._dim = dim
        self._path: Path | None = None
        if folder is None:
            with tempfile.TemporaryFile() as file:
                self._descriptor = os.dup(file.fileno())
        else:
            folder.mkdir(parents=True, exist_ok=True)
            self._path = folder / f"{secrets.token_hex(16)}{_PARTIAL}"
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        self._end = _HEADER
        self._checksum = 0
        self._keys: list[Keys] = []
        self.file = VectorFile(self._descriptor, _HEADER, dim)

    @property
    def keys(self) -> Keys:
        """The keys of the vectors so far."""
        return np.concatenate([np.empty(0, np.int64), *self._keys])

    def append(self, keys: Keys, vectors: Vectors) -> None:
        """Write prepared vectors (n, dim) and note their keys (n,)."""
        self._checksum = self._write(np.ascontiguousarray(vectors, "<f4"), self._checksum)
        self._keys.append(keys)

    def finish(self, graph: Graph) -> str | None:
        """Write the rest, make the file durable and return its name, or None where there is no folder."""
        if self._path is None:
            return None
        vectors = self._end - _HEADER
        keys = self._write(graph.keys.astype("<i8"), 0)
        written = _Writer(self)
        faiss.write_index(graph.hnsw, faiss.BufferedIOWriter(faiss.PyCallbackIOWriter(written), BLOCK))
        header = {
            "similarity": graph.similarity.name,
            "dim": self._dim,
            "length": len(graph),
            "effort": graph.effort,
            "stretch": graph.stretch,
            "recall": graph.recall,
            "measured": graph.measured,
            "end": self._end,
            "checksums": [self._checksum, keys, written.checksum],
        }
        assert vectors == len(graph) * 4 * self._dim
        encoded = json.dumps(header).encode()
        encoded = _MAGIC + b"%08x\n" % zlib.crc32(encoded) + encoded
        os.pwrite(self._descriptor, encoded.ljust(_HEADER), 0)
        os.fsync(self._descriptor)
        final = self._path.with_suffix(SUFFIX)
        self._path.rename(final)
        _sync_folder(final.parent)
        return final.name

    def discard(self) -> None:
        """Remove what was written."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _write(self, array: Any, checksum: int) -> int:
        data = memoryview(array).cast("B")
        while len(data):
            written = os.pwrite(self._descriptor, data[: 1 << 28], self._end)
            checksum = zlib.crc32(data[:written], checksum)
            self._end += written
            data = data[written:]
        return checksum


class _Writer:
    """What FAISS writes to; keeps the checksum."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self.checksum = 0

    def __call__(self, data: bytes) -> None:
        self.checksum = self._draft._write(data, self.checksum)


def load(folder: Path, name: str, dim: int, similarity: Similarity) -> Graph:
    """Return the graph of a snapshot; raises `DamagedSnapshot`, and `OSError` where there is none."""
    descriptor = os.open(folder / name, os.O_RDONLY)
    file = VectorFile(descriptor, _HEADER, dim)
    start = os.pread(descriptor, _HEADER, 0)
    checksum, encoded = start[len(_MAGIC) : len(_MAGIC) + 9], start[len(_MAGIC) + 9 :].rstrip()
    if not start.startswith(_MAGIC) or checksum != b"%08x\n" % zlib.crc32(encoded):
        raise DamagedSnapshot("its header is damaged")
    header = json.loads(encoded)
    if (header["dim"], header["similarity"]) != (dim, similarity.name):
        raise DamagedSnapshot(f"it is of vectors of {header['dim']} numbers, compared by {header['similarity']}")
    if os.fstat(descriptor).st_size != header["end"]:
        raise DamagedSnapshot(f"it has {os.fstat(descriptor).st_size} bytes instead of {header['end']}")
    length = header["length"]
    ends = [_HEADER, _HEADER + length * 4 * dim, _HEADER + length * (4 * dim + 8), header["end"]]
    for begin, end, expected in zip(ends, ends[1:], header["checksums"], strict=False):
        if _checksum(descriptor, begin, end) != expected:
            raise DamagedSnapshot(f"its bytes from {begin} to {end} are not what was written")
    keys = np.empty(length, np.int64)
    if length:
        os.preadv(descriptor, [keys.data], ends[1])
    reader = faiss.BufferedIOReader(faiss.PyCallbackIOReader(_Reader(descriptor, ends[2])), BLOCK)
    try:
        hnsw = faiss.read_index(reader)
    except RuntimeError as error:  # written by another version of FAISS
        raise DamagedSnapshot(f"FAISS cannot read it: {error}") from None
    return Graph(
        *(similarity, keys, file, hnsw),
        effort=header["effort"],
        stretch=header["stretch"],
        recall=header["recall"],
        measured=header["measured"],
        name=name,
    )


def tidy(folder: Path, names: Iterable[str]) -> None:
    """Remove what is left in the folder of snapshots, but for those that are named."""
    kept = set(names)
    with suppress(OSError):
        for path in folder.iterdir():
            if path.suffix in (SUFFIX, _PARTIAL) and path.name not in kept:
                path.unlink(missing_ok=True)


def remove(folder: Path, name: str) -> None:
    """Remove a snapshot; what has it open can go on reading."""
    with suppress(OSError):
        (folder / name).unlink(missing_ok=True)


def written(folder: Path, name: str) -> datetime | None:
    """Return when a snapshot was written, in UTC; None where there is none."""
    with suppress(OSError):
        return datetime.fromtimestamp((folder / name).stat().st_mtime, UTC)
    return None


class _Reader:
    """What FAISS reads from: a file, from an offset on."""

    def __init__(self, descriptor: int, offset: int) -> None:
        self._descriptor = descriptor
        self._offset = offset

    def __call__(self, size: int) -> bytes:
        data = os.pread(self._descriptor, size, self._offset)
        self._offset += len(data)
        return data


def _checksum(descriptor: int, begin: int, end: int) -> int:
    checksum = 0
    buffer = memoryview(bytearray(BLOCK))
    while begin < end:
        read = os.preadv(descriptor, [buffer[: min(BLOCK, end - begin)]], begin)
        if not read:
            break
        checksum = zlib.crc32(buffer[:read], checksum)
        begin += read
    return checksum


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
