"""A cache on disk of what is costly to derive from a checkpoint: converted graphs, quantised weights, tokenizers."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from service.checkpoint import sha256_now
from service.errors import CheckpointError

logger = logging.getLogger(__name__)

_MANIFEST: Final = "manifest.json"


class Artifacts:
    """Folders of files, each under a key that names everything it was made from.

    A folder appears whole or not at all, whatever interrupts its making, and its checksums are verified before it is
    used: a damaged one is made again. Processes that want the same folder wait for the first to make it. Where the
    cache cannot be written, each process makes its own in a temporary folder and logs a warning.

    Args:
        root: the cache folder; the user's own where None.
    """

    def __init__(self, root: Path | None = None) -> None:
        self._temporary: list[tempfile.TemporaryDirectory[str]] = []
        root = root or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "millpond"
        try:
            self.root = root.expanduser().absolute()
        except RuntimeError:  # HOME is not set, and the system knows no user of this number
            self.root = Path(self._make_temporary())
            logger.warning(
                "there is no home folder for %s: what is made of a checkpoint is made anew at every start. Set "
                "runtime.cache to a folder that can be written, or HOME.",
                root,
            )

    def path(self, kind: str, key: Mapping[str, Any]) -> Path:
        """Return where the folder under `key` is, once it is made."""
        return self.root / f"{kind}-{hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]}"

    def get(self, kind: str, key: Mapping[str, Any], build: Callable[[Path], None]) -> Path:
        """Return the folder under `key`, made by `build(folder)` where there is none that is whole.

        Raises:
            CheckpointError: neither the cache nor a temporary folder can be written.
        """
        final = self.path(kind, key)
        if _is_whole(final):
            return final
        try:
            with self._locked(final.name):
                if not _is_whole(final):  # another process may have made it meanwhile
                    self._make(final, key, build)
            return final
        except OSError as error:
            logger.warning(
                "%s cannot be written (%s); %s is made anew at every start. Set runtime.cache to a folder with room.",
                *(self.root, error.strerror or error, kind),
            )
        try:
            folder = Path(self._make_temporary())
            build(folder)
        except OSError as error:
            raise CheckpointError(
                f"neither {self.root} nor {tempfile.gettempdir()} can hold a {kind} ({error.strerror or error}). "
                "Make room, or set runtime.cache to a folder that can be written."
            ) from None
        return folder

    def _make_temporary(self) -> str:
        """Make a folder that lasts as long as this object, and return its path."""
        folder = tempfile.TemporaryDirectory(prefix="millpond-")
        self._temporary.append(folder)
        return folder.name

    def _make(self, final: Path, key: Mapping[str, Any], build: Callable[[Path], None]) -> None:
        if final.exists():
            logger.warning("%s is damaged and is made anew", final)
            shutil.rmtree(final)
        making = self.root / f".{final.name}.part"
        shutil.rmtree(making, ignore_errors=True)  # what an interrupted process left
        making.mkdir()
        try:
            build(making)
            files = {path.name: sha256_now(path) for path in sorted(making.iterdir())}
            (making / _MANIFEST).write_text(json.dumps({"key": key, "files": files}, indent=1, default=str))
            for path in making.iterdir():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            making.rename(final)
        except BaseException:
            shutil.rmtree(making, ignore_errors=True)
            raise

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / f".{name}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # released by the system however this process ends
            yield


def _is_whole(folder: Path) -> bool:
    try:
        files = json.loads((folder / _MANIFEST).read_text())["files"]
        return all(sha256_now(folder / name) == wanted for name, wanted in files.items())
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False
