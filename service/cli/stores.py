"""Stores as files, for commands that ask no service."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.cli.console import Failure
from service.store.store import FILE, Store


@contextmanager
def opened(folder: Path) -> Iterator[Store]:
    """Open the store of a service that is stopped.

    Raises:
        Failure: there is none.
        StoreUnavailable: it cannot be opened, or a service has it open.
    """
    require_store(folder)
    store = Store(folder)
    try:
        yield store
    finally:
        store.close()


def require_store(folder: Path) -> Path:
    """Return the file of the store in a folder; raises `Failure` where there is none."""
    file = folder / FILE
    if not file.is_file():
        raise Failure(f"{folder} holds no store: there is no {file}. Name the folder that store.path is set to.", 2)
    return file
