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


class Stream:
    """A file; `opened` gives its bytes, decompressed by how its name ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._raw: IO[bytes] | None = None
        self._size = path.stat().st_size

    @contextmanager
    def opened(self) -> Iterator[IO[bytes]]:
        """Open it; raises `Failure`, also within the block, where it is damaged or a package is missing."""
        try:
            with self._path.open("rb") as raw, _decompressed(raw, self._path) as content:
                self._raw = raw
                yield content
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise Failure(f"{self._path} is damaged, and cannot be read further: {error}.", 2) from None
        except OSError as error:
            raise Failure(f"{self._path}: {error.strerror or error}.", 2) from None
        except Exception as error:
            if type(error).__name__ != "ZstdError":
                raise
            raise Failure(f"{self._path} is damaged, and cannot be read further: {error}.", 2) from None

    @property
    def read(self) -> float:
        """How much of it is read, from 0 to 1; 0 for what has no size, such as a pipe."""
        if self._raw is None or not self._size or not self._raw.seekable():
            return 0.0
        return min(self._raw.tell() / self._size, 1.0)


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
        zstandard = needed("zstandard", "zstandard", path)
        with zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True) as content:
            yield io.BufferedReader(content)
    else:
        yield raw
