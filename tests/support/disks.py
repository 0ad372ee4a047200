"""File systems of their own for tests: small ones that fill, and what can be read alone."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

PAGE: Final = 4096


class CannotMount(Exception):
    """This user cannot mount a file system here."""


class Disk:
    """A file system in memory, mounted on a folder.

    Args:
        folder: where, which is made.
        size: its bytes.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        self._filler = folder / "filler"
        folder.mkdir(parents=True, exist_ok=True)
        _mount("-t", "tmpfs", "-o", f"size={size}", "millpond-test", folder)

    @property
    def free(self) -> int:
        """The bytes that can still be written."""
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize

    def fill(self, leave: int = 0) -> None:
        """Take all of the disk that is free, but for so many bytes, in place of what was taken before."""
        self.empty()
        with self._filler.open("wb") as file:
            while (size := self.free - leave) > 0:
                with suppress(OSError):  # others may be writing
                    os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, size)

    def empty(self) -> None:
        """Give back what was taken."""
        self._filler.unlink(missing_ok=True)

    def resize(self, size: int) -> None:
        """Let the disk have so many bytes."""
        _mount("-o", f"remount,size={size}", self.folder)

    def make_read_only(self) -> None:
        """Let nothing be written any more; nothing may be open for writing."""
        _mount("-o", "remount,ro", self.folder)

    def make_writable(self) -> None:
        """Undo `make_read_only`."""
        _mount("-o", "remount,rw", self.folder)


@contextmanager
def mounted(folder: Path, size: int) -> Iterator[Disk]:
    """Yield a disk of so many bytes, mounted on a new folder; raises `CannotMount`."""
    disk = Disk(folder, size)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)  # whatever is still open


@contextmanager
def read_only(file: Path) -> Iterator[None]:
    """Let a file not be written, by whomever, while its folder can be; raises `CannotMount`."""
    _mount("--bind", file, file)
    try:
        _mount("-o", "remount,bind,ro", file)
        yield
    finally:
        subprocess.run(["umount", "--lazy", file], check=True)


def _mount(*arguments: str | Path) -> None:
    try:
        done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise CannotMount("there is no `mount`") from None
    if done.returncode:
        raise CannotMount(f"this user cannot mount a file system: {done.stderr.strip()}")
