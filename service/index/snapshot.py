"""Snapshots: what was built of an index in files, which are checked before anything is made of them.

A file has a header of fixed size, then vectors where the index keeps them there, the keys and what FAISS writes, each
with a checksum. It is written under another name, and has its own only once it is whole and on the disk. A snapshot's
name is that of its file, or of all of them, with spaces between.
"""

from __future__ import annotations

import json
import os
import secrets
import tempfile
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import faiss as _typed_faiss
import numpy as np

from service.arrays import Keys, Vectors
from service.durable import sync_folder
from service.index.base import DamagedSnapshot
from service.index.vectorfile import BLOCK, VectorFile
from service.similarity import Similarity

faiss: Any = _typed_faiss

SUFFIX: Final = ".index"
_PARTIAL: Final = ".partial"
_MAGIC: Final = b"millpond index 1\n"
_HEADER: Final = 4096


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What a file holds.

    Args:
        name: of the file.
        about: what the index said of it.
        keys: of its vectors (n,), ascending.
        file: the prepared vectors, where they are kept there.
        index: what FAISS wrote.
    """

    name: str
    about: Mapping[str, Any]
    keys: Keys
    file: VectorFile
    index: Any


class Draft:
    """A file that is being written, to which vectors are appended; without a folder it never gets a name."""

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
        self.file = VectorFile(self._descriptor, _HEADER, dim)

    def append(self, vectors: Vectors) -> None:
        """Write prepared vectors (n, dim)."""
        self._checksum = self._write(np.ascontiguousarray(vectors, "<f4"), self._checksum)

    def finish(
        self, kind: str, similarity: Similarity, keys: Keys, index: Any, about: Mapping[str, Any]
    ) -> str | None:
        """Write the rest, make the file durable and return its name, or None where there is no folder.

        `keys` (n,) are those of the vectors of `index`, which is one of FAISS's; `about` is any JSON object.
        """
        if self._path is None:
            return None
        vectors = (self._end - _HEADER) // (4 * self._dim)
        of_keys = self._write(keys.astype("<i8"), 0)
        written = _Writer(self)
        faiss.write_index(index, faiss.BufferedIOWriter(faiss.PyCallbackIOWriter(written), BLOCK))
        header = {
            **about,
            "kind": kind,
            "similarity": similarity.name,
            "dim": self._dim,
            "vectors": vectors,
            "length": len(keys),
            "end": self._end,
            "checksums": [self._checksum, of_keys, written.checksum],
        }
        encoded = json.dumps(header).encode()
        encoded = _MAGIC + b"%08x\n" % zlib.crc32(encoded) + encoded
        os.pwrite(self._descriptor, encoded.ljust(_HEADER), 0)
        os.fsync(self._descriptor)
        final = self._path.with_suffix(SUFFIX)
        self._path.rename(final)
        sync_folder(final.parent)
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


def load(folder: Path, name: str, dim: int, similarity: Similarity, kind: str) -> Snapshot:
    """Return what the file of an index of a kind holds.

    Raises `DamagedSnapshot`, and `OSError` where there is none.
    """
    descriptor = os.open(folder / name, os.O_RDONLY)
    file = VectorFile(descriptor, _HEADER, dim)
    start = os.pread(descriptor, _HEADER, 0)
    checksum, encoded = start[len(_MAGIC) : len(_MAGIC) + 9], start[len(_MAGIC) + 9 :].rstrip()
    if not start.startswith(_MAGIC) or checksum != b"%08x\n" % zlib.crc32(encoded):
        raise DamagedSnapshot("its header is damaged")
    header = {"kind": "hnsw", **json.loads(encoded)}  # the only kind there was before it was written
    if (header["dim"], header["similarity"]) != (dim, similarity.name):
        raise DamagedSnapshot(f"it is of vectors of {header['dim']} numbers, compared by {header['similarity']}")
    if header["kind"] != kind:
        raise DamagedSnapshot(f"it is of an index of the kind {header['kind']!r}")
    if os.fstat(descriptor).st_size != header["end"]:
        raise DamagedSnapshot(f"it has {os.fstat(descriptor).st_size} bytes instead of {header['end']}")
    length = header["length"]
    ends = [_HEADER, _HEADER + header.get("vectors", length) * 4 * dim, 0, header["end"]]
    ends[2] = ends[1] + 8 * length
    for begin, end, expected in zip(ends, ends[1:], header["checksums"], strict=False):
        if _checksum(descriptor, begin, end) != expected:
            raise DamagedSnapshot(f"its bytes from {begin} to {end} are not what was written")
    if not length:
        raise DamagedSnapshot("it is empty")
    keys = np.empty(length, np.int64)
    os.preadv(descriptor, [keys.data], ends[1])
    reader = faiss.BufferedIOReader(faiss.PyCallbackIOReader(_Reader(descriptor, ends[2])), BLOCK)
    try:
        index = faiss.read_index(reader)
    except RuntimeError as error:  # written by another version of FAISS
        raise DamagedSnapshot(f"FAISS cannot read it: {error}") from None
    return Snapshot(name, header, keys, file, index)


def tidy(folder: Path, snapshots: Iterable[str]) -> None:
    """Remove what is left in the folder of snapshots, but for those that are named."""
    kept = {name for snapshot in snapshots for name in snapshot.split()}
    with suppress(OSError):
        for path in folder.iterdir():
            if path.suffix in (SUFFIX, _PARTIAL) and path.name not in kept:
                path.unlink(missing_ok=True)


def remove(folder: Path, snapshot: str, kept: str | None = None) -> None:
    """Remove the files of a snapshot, but for those of one that is kept; what has them open can go on reading."""
    for name in set(snapshot.split()).difference((kept or "").split()):
        with suppress(OSError):
            (folder / name).unlink(missing_ok=True)


def written(folder: Path, snapshot: str) -> datetime | None:
    """Return when the last file of a snapshot was written, in UTC; None where one is missing."""
    with suppress(OSError):
        return datetime.fromtimestamp(max((folder / name).stat().st_mtime for name in snapshot.split()), UTC)
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
