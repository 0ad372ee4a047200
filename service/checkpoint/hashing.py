"""Checksums of model files."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from service.errors import CheckpointError


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex; an unchanged file is read only once.

    Raises:
        CheckpointError: the file cannot be read.
    """
    try:
        status = path.stat()
        return _sha256(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}.") from None


def sha256_now(path: Path) -> str:
    """Return the SHA-256 of a file as it is on disk now, in hex.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=64)
def _sha256(path: Path, size: int, modified: int) -> str:
    return sha256_now(path)
