"""Files as streams of bytes, compressed or not, that know how much of them is read."""

from __future__ import annotations

import gzip
import importlib
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from service.cli.console import Failure

ENDINGS: Final = (".gz", ".zst")
_PART_BYTES: Final = 1 << 16
"""Bytes that are decompressed at once."""


class Stream:
    """A file; `opened` gives its bytes, decompressed by how its name ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._raw: IO[bytes] | None = None
        self._size = path.stat().st_size

    @contextmanager
    def opened(self) -> Iterator[IO[bytes]]:
        """Open it; raises `Failure`, also within the block, where it is damaged or a package is missing."""
        with explained(self._path), self._path.open("rb") as raw, _decompressed(raw, self._path) as content:
            self._raw = raw
            yield content

    @property
    def read(self) -> float:
        """How much of it is read, from 0 to 1; 0 for what has no size, such as a pipe."""
        if self._raw is None or not self._size or not self._raw.seekable():
            return 0.0
        return min(self._raw.tell() / self._size, 1.0)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Raise `Failure` where a stream that is read in the block is damaged or cannot be read."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Failure(f"{path} is damaged, and cannot be read further: {error}.", 2) from None
    except OSError as error:
        raise Failure(f"{path}: {error.strerror or error}.", 2) from None
    except Exception as error:
        if type(error).__name__ != "ZstdError":
            raise
        raise Failure(f"{path} is damaged, and cannot be read further: {error}.", 2) from None


def needed(module: str, package: str, path: Path) -> Any:
    """Import a package that only some formats need; raises `Failure` where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise Failure(
            f"{path}: reading and writing {path.suffix} files takes the package {package}. Install it: "
            f"`pip install {package}`.",
            2,
        ) from None


@contextmanager
def _decompressed(raw: IO[bytes], path: Path) -> Iterator[IO[bytes]]:
    if path.suffix.lower() == ".gz":
        with gzip.open(raw, "rb") as content:
            yield io.BufferedReader(content)
    elif path.suffix.lower() == ".zst":
        yield io.BufferedReader(_Zstandard(raw, needed("zstandard", "zstandard", path).ZstdDecompressor()))
    else:
        yield raw


class _Zstandard(io.RawIOBase):
    """Decompresses any number of frames; `EOFError` where the last one is cut off, which the package lets pass."""

    def __init__(self, raw: IO[bytes], decompressor: Any) -> None:
        self._raw = raw
        self._decompressor = decompressor
        self._frame: Any = None
        self._compressed = b""
        self._content = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._content:
            self._compressed = self._compressed or self._raw.read(_PART_BYTES)
            if not self._compressed:
                if self._frame is not None:
                    raise EOFError("it ends within a frame")
                return 0
            self._frame = self._frame or self._decompressor.decompressobj()
            self._content = memoryview(self._frame.decompress(self._compressed))
            self._compressed = self._frame.unused_data
            if self._frame.eof:
                self._frame = None
        count = min(len(buffer), len(self._content))
        buffer[:count], self._content = self._content[:count], self._content[count:]
        return count
